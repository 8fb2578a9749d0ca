"""Delimited text of any size, in the forms vendors hand it out."""

from .form import Between as Between
from .form import Field as Field
from .form import Form as Form
from .form import Refine as Refine
from .lines import LINE as LINE
from .parsed import Parsed as Parsed
from .parsed import together as together
from .parsing import parse as parse
