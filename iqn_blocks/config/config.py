"""A configuration whose keys go together."""

from __future__ import annotations

from pydantic import model_validator

from iqn_blocks.config.messages import join
from iqn_blocks.config.rules import cross_faults
from iqn_blocks.config.schema import ConfigKeys
from iqn_blocks.errors import ConfigError


class Config(ConfigKeys):
    """Everything that a network is built from.

    Raises:
        ConfigError: with all faults of single keys, or else with all faults between keys.
    """

    @model_validator(mode="after")
    def _check_rules(self) -> Config:
        faults = cross_faults(self)
        if faults:
            raise ConfigError(join(faults))
        return self
