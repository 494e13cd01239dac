"""Everything between a submission and its grade.

exercise -> one table an exercise: points, inputs, reference, wrong answers and their sentences
judge    -> calls an answer, compares, names the mistake
check    -> the same in the learner's own notebook
rebuild, player, sandbox, bridge -> the way of a submitted file to its verdict, trusting nobody
"""
