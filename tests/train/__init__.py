"""Tests of the trainer. They reach for no network, whoever imports huggingface_hub first."""

import os

import huggingface_hub.constants

os.environ["HF_HUB_OFFLINE"] = "1"
huggingface_hub.constants.HF_HUB_OFFLINE = True
