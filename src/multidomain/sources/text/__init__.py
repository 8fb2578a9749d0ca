"""Delimited text of any size, in the forms vendors hand it out."""

from .form import Between as Between
from .form import Field as Field
from .form import Form as Form
from .form import Refine as Refine
from .lines import LINE as LINE
from .once import once as once
from .parsing import Parsed as Parsed
from .parsing import parse as parse
from .parsing import together as together
