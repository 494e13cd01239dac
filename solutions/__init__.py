"""The instructor's side: lessons as text, and what turns them into the notebooks that learners open.

NN_name.py  the lessons, as text (py:percent): the only course files that are edited by hand
paste       a library function -> the cell that asks for it
notebook    a lesson -> nbgrader's source notebook, solutions and the instructor's notes included
release     source notebooks -> the learners' notebooks, by nbgrader, checked for leaks
build       `python -m solutions.build`: all of it, into course/
"""
