"""Kedro datasets of this project: every write goes to a temporary name first and is then renamed."""

from .connection import connection as connection
from .connection import embedded as embedded
from .connection import engine_of as engine_of
from .datasets import Choice as Choice
from .datasets import Folder as Folder
from .datasets import PaperTable as PaperTable
from .datasets import ParquetTable as ParquetTable
from .datasets import SchemaFile as SchemaFile
from .datasets import WorkingFolder as WorkingFolder
