"""Where files come from: accessions and addresses, one polite client, a cache, a lock file.

Knows no file format but the head of a series matrix; writes no store.
"""
