"""Features with a time: what was known of a user, an item and a domain before each impression.

``views`` builds one Parquet file per Feast view, ``repository`` registers them, ``asof`` is the offline store that
joins them point in time, ``frame`` makes the training frame.
"""
