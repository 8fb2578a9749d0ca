"""What Feast reads: the entities, views and service of one variant, built from its schema.

``MULTIDOMAIN_DATASET`` (default movielens) and ``MULTIDOMAIN_VARIANT`` (default: the schema's) choose it. Feast
finds objects by their module-level names, so every object gets one.
"""

from multidomain.features import definitions, repository

_variant = repository.chosen()
for _object in definitions.objects(_variant, repository.views_folder(_variant), spark=repository.on_spark()):
    globals()[f"{type(_object).__name__.lower()}_{_object.name}"] = _object
del _object
