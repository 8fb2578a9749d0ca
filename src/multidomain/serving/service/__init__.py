"""The ranker behind HTTP: ``make serve``, or ``python -m multidomain.serving.service``.

=============  =====================================================================================================
file           what it does
=============  =====================================================================================================
``settings``   the options, of ``conf/base/parameters/serve.yml``, ``service``
``wire``       what requests and answers look like, made from the package's columns
``holder``     the loaded model, and the one that takes its place when the alias moves
``reading``    features of the online store in a bounded time, or the defaults
``batcher``    requests that came together scored in one forward
``service``    a request's way through all of them
``http``       bodies, keys, refusals, what is logged and counted of every request
``app``        the routes and the OpenAPI document
``server``     uvicorn, and how it drains
=============  =====================================================================================================
"""
