"""Answering requests: online features, one model, an order."""

from .events import Event as Event
from .events import record as record
from .ranker import Ranker as Ranker
from .ranker import Ranking as Ranking
from .ranker import Request as Request
from .reads import RowCache as RowCache
