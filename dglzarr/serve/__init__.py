"""A read-only web application over finished studies: pages, JSON, and the stores themselves.

``dglzarr serve STUDY...`` runs it. Nothing here writes to a study; what is asked is answered by
`dglzarr.serve.answers`, from a study as it stood at one moment.
"""
