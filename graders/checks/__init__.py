"""The tables of exercises, one file a concept: the stems of the library's files."""
