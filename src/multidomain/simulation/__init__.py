"""Click logs whose truth is known: every row carries the probability its label was drawn with.

``presets`` says which effects there are and how strong, ``world`` draws users, items and impressions, ``effects`` has
one function per effect, ``history`` plays the impressions of all users forward in time where earlier clicks matter,
and ``generate`` puts them together.
"""
