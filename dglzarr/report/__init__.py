"""Tables, figures and the HTML report from finished stores; nothing is fitted here.

``page`` is the entry; it loads matplotlib, so nothing is imported here.
"""
