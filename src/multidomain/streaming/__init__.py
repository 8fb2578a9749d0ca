"""Training on a stream of impressions that never ends (STAR, section 4.4).

``source`` says what a stream is, ``folder`` and ``redis_stream`` are two; ``buffer`` holds the sliding window that
batches are drawn from, ``prequential`` what every row scored before it was learnt, ``vocabulary`` which ids come
and go, ``checkpoint`` all that a crash must not lose, and ``stream`` puts them together.
"""
