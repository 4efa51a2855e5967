"""YAML files -> frozen models: devices, profiles, experiments.

A name is looked up in `configs/<kind>s/<name>.yaml`; a path to a YAML file works as well.
Every error names the file, the key, what was expected and what to do.
"""

from fedbench.config.device import Device, Gpu, Network, NetworkClass, Watts
from fedbench.config.experiment import Data, Experiment
from fedbench.config.fields import Model, ModelName, Name, parse_name
from fedbench.config.loading import (
    CONFIGS,
    available,
    find,
    load,
    load_device,
    load_devices,
    load_experiment,
    load_network,
    load_networks,
    load_profile,
    refusal,
)
from fedbench.config.overrides import assign, override, split_overrides
from fedbench.config.profile import Machine, Ports, Profile

__all__ = [
    "CONFIGS",
    "Data",
    "Device",
    "Experiment",
    "Gpu",
    "Machine",
    "Model",
    "ModelName",
    "Name",
    "Network",
    "NetworkClass",
    "Ports",
    "Profile",
    "Watts",
    "assign",
    "available",
    "find",
    "load",
    "load_device",
    "load_devices",
    "load_experiment",
    "load_network",
    "load_networks",
    "load_profile",
    "override",
    "parse_name",
    "refusal",
    "split_overrides",
]
