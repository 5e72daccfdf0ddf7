"""The same server on a Ray cluster: replicas behind Ray's proxy, sharing one store of uploads.

    pip install 'medical-vqa[serve,ray]'
    MEDICAL_VQA_STORE=s3://bucket/uploads serve run deploy.ray_serve:app

Every replica has a model and batches for itself; Ray spreads requests over them and starts more under load. The store
must be one that all replicas reach: `memory://` belongs to one replica.
"""

from __future__ import annotations

import os

from ray import serve

from medical_vqa.pipelines.serve import build_engine
from medical_vqa.serving.api.app import create_app
from medical_vqa.serving.settings import read_settings


def build() -> object:
    """The application, built on the replica: a model is not pickled."""
    settings = read_settings()
    return create_app(build_engine(settings), settings)


@serve.deployment(
    ray_actor_options={"num_cpus": float(os.environ.get("CPUS_PER_REPLICA", "1"))},
    max_ongoing_requests=300,  # above the server's own queue, so that its 429 is what a client sees
    autoscaling_config={"min_replicas": 1, "max_replicas": int(os.environ.get("MAX_REPLICAS", "4"))},
    graceful_shutdown_timeout_s=10,
)
@serve.ingress(build)
class MedicalVqa:
    """One replica."""


app = MedicalVqa.bind()
