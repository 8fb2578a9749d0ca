"""What the data must be like: rules from the schema, checked by Great Expectations, bad rows set apart by Ibis."""

from .rules import Rule as Rule
from .rules import rules as rules
