"""Commands: the options of a command line -> text and files out, an exit status; one file a command.

Each file has `run(args) -> int`. torch comes with the first that needs it: `options` and its help do without.
"""
