"""Runs as one HTML page: what ran, a few numbers, charts with a sentence each, tables.

`story.py` is a run as the page tells it; each other module draws some of the charts; `render.py`
puts them into the template. The page has all it needs inlined, and asks no network for anything.
"""
