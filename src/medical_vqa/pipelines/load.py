"""Load a model by what a person calls it: a folder, ``shipped``, ``hub:USER/NAME``, or a remote model.

A remote model is ``openai:MODEL``, ``vllm:MODEL`` and the like, or a name in ``models.yaml``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medical_vqa.errors import BundleError, ConfigError, ModelError, OfflineError
from medical_vqa.io import as_path, file_name
from medical_vqa.models.guards.guard import Guards
from medical_vqa.pipelines.bundles import find_bundle, load_model, shipped_bundle
from medical_vqa.pipelines.runs import RUNS
from medical_vqa.text import did_you_mean

if TYPE_CHECKING:
    from medical_vqa.models.base import VqaModel
    from medical_vqa.models.remote.endpoint import Endpoint
    from medical_vqa.models.remote.named_models import RemoteName
    from medical_vqa.models.remote.usage import Usage
    from medical_vqa.schema.bundle_card import BundleCard

SHIPPED, HUB = "shipped", "hub:"
CONCURRENCY = 8  # requests to an endpoint that run at once
ANSWER_BATCH = 64  # questions answered at once: large enough to be fast, small enough for any memory


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to answer, local or remote."""

    model: VqaModel
    """Answers queries."""
    card: BundleCard
    """Description of the model: family, name, data, scores, decoding."""
    bundle: Path | None
    """Folder of its files; None for a remote model."""
    output: Path
    """Folder in which its predictions are written by default."""
    guards: Guards
    """Withholds answers that the picture does not support."""
    batch_size: int = ANSWER_BATCH
    """Questions that it answers at once."""
    price: tuple[float, float] | None = None
    """Cost per million tokens in and out; None where it is not known."""

    @property
    def usage(self) -> Usage | None:
        """Requests and tokens spent so far; None for a local model."""
        usage: Usage | None = self.model.usage
        return usage

    def close(self) -> None:
        """Close the connections of a remote model."""
        self.model.close()


def load(
    name: str | Path,
    *,
    device: str = "auto",
    base_url: str | None = None,
    api_key: str | None = None,
    api_key_env: str | None = None,
    concurrency: int | None = None,
    logprobs: bool = True,
    allow_http: bool = False,
    image_dependence: bool | None = None,
    tries: int | None = None,
    for_any_model: bool = False,
) -> LoadedModel:
    """Load a model, ready to answer.

    Args:
        name: A run folder, a bundle folder, ``shipped``, ``hub:USER/NAME`` (``@REVISION`` may follow),
            ``PROVIDER:MODEL`` behind an OpenAI-compatible endpoint, or a name in ``models.yaml``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``, for a local model.
        base_url: Address of the endpoint of a remote model, up to and with ``/v1``; None: its provider's default.
        api_key: Key that the endpoint asks for; None: the value of `api_key_env`.
        api_key_env: Environment variable with the key; None: ``OPENAI_API_KEY``, or what ``models.yaml`` says.
        concurrency: Requests to the endpoint that run at once; None: 8, or what ``models.yaml`` says.
        logprobs: Whether to ask the endpoint for token probabilities, from which the confidence is computed.
        allow_http: Whether the key may be sent to another machine without encryption.
        image_dependence: Whether the guards measure how much the picture moves an answer; None where it is cheap.
        tries: Attempts per question; None: 6, or what ``models.yaml`` says.
        for_any_model: Whether the options are those of a configuration for any model, so that those of endpoints are
            ignored for a local one, and the device for a remote one; otherwise they are refused. A `base_url` is in
            either case.

    Raises:
        BundleError: The folder holds no bundle, or a damaged one.
        ConfigError: The device is not available or that of a remote model, or an option of endpoints is set for a local
            one.
        ModelError: The hub has no such repository.
        OfflineError: The hub cannot be reached and its local cache does not hold the repository.
    """
    changes = {
        "base_url": base_url,
        "api_key_env": api_key_env,
        "logprobs": None if logprobs else False,
        "allow_http": allow_http or None,
        "tries": tries,
    }
    remote_name = remote_named(name, changes)
    if remote_name is not None:
        if str(device) != "auto" and not for_any_model:
            raise device_of_remote(name)
        key = os.environ.get(remote_name.endpoint.api_key_env, "") if api_key is None else api_key
        workers = (remote_name.concurrency or CONCURRENCY) if concurrency is None else concurrency
        return remote(
            remote_name.endpoint,
            api_key=key,
            concurrency=workers,
            price=remote_name.price,
            image_dependence=image_dependence,
        )
    if base_url is not None:
        raise _not_of_local("a base URL", name)
    options = {
        "--api-key-env (api_key=, api_key_env=)": api_key is not None or api_key_env is not None,
        "--concurrency (concurrency=)": concurrency is not None,
        "--no-logprobs (logprobs=)": not logprobs,
        "--allow-http (allow_http=)": allow_http,
    }
    for option, is_set in options.items():
        if is_set and not for_any_model:
            raise _not_of_local(option, name)
    bundle = bundle_folder(name)
    model, card = load_model(bundle, str(device))  # a torch.device too
    named = isinstance(name, str) and (name == SHIPPED or name.startswith(HUB))
    guards = Guards.load(model, card, bundle, image_dependence=image_dependence)
    return LoadedModel(model, card, bundle, RUNS / card.name if named else bundle.parent, guards)


def _not_of_local(option: str, name: str | Path) -> ConfigError:
    return ConfigError(f"{option} belongs to a remote model and not to {name}; leave it out or name openai:MODEL")


def device_of_remote(name: str | Path) -> ConfigError:
    """The error for a device that is set for a remote model."""
    return ConfigError(
        f"--device (device=) is where a local model runs, and {name} runs on the machine of its endpoint; leave it out"
    )


def remote_named(name: str | Path, changes: dict[str, Any] | None = None) -> RemoteName | None:
    """The remote model that a name stands for, None for a local one; raises as `named_models.resolve` does.

    Args:
        name: What a person calls the model.
        changes: Fields of its endpoint that differ from the defaults or from ``models.yaml``; None: as they are there.
    """
    if not isinstance(name, str) or name == SHIPPED or name.startswith(HUB):
        return None
    from medical_vqa.models.remote.named_models import resolve

    return resolve(name, {field: value for field, value in (changes or {}).items() if value is not None})


def bundle_folder(name: str | Path) -> Path:
    """The bundle of a local model, by the names that `load` takes; one on the hub is downloaded."""
    if name == SHIPPED:
        return shipped_bundle()
    if isinstance(name, str) and name.startswith(HUB):
        return download_bundle(name.removeprefix(HUB))
    folder = as_path(name, "model")
    if not folder.exists():
        is_path = folder.name != str(name)
        advice = "check the path, or write it as one of these" if is_path else did_you_mean(folder.name, [SHIPPED])
        raise BundleError(
            f"no bundle at {name}: expected a run folder, a bundle, hub:USER/NAME or PROVIDER:MODEL; {advice}"
        )
    return find_bundle(folder)


def remote(
    endpoint: Endpoint,
    *,
    api_key: str = "",
    concurrency: int = CONCURRENCY,
    price: tuple[float, float] | None = None,
    probe: bool = True,
    image_dependence: bool | None = None,
) -> LoadedModel:
    """The model behind an endpoint; it is not contacted before the first question.

    Args:
        endpoint: Address and request settings.
        api_key: Key that the endpoint asks for; empty for none.
        concurrency: Requests that run at once.
        price: Cost per million tokens in and out.
        probe: Whether one probe picture decides, before the first question, if the model sees pictures.
        image_dependence: Whether the guards measure how much the picture moves an answer.
    """
    from medical_vqa.models.remote.model import RemoteModel
    from medical_vqa.schema.bundle_card import BundleCard, ModelFacts

    model = RemoteModel(endpoint, api_key=api_key, concurrency=concurrency, probe=probe)
    card = BundleCard(
        family=model.family, name=endpoint.model, facts=ModelFacts.of(model.describe()), prompt=endpoint.prompt
    )
    folder = RUNS / file_name(endpoint.model)
    bundle = folder / "bundle"
    if (calibrated := calibrated_card(bundle, card)) is None:
        guards = Guards(model, card, image_dependence=image_dependence)
        return LoadedModel(model, card, None, folder, guards, 4 * concurrency, price)
    guards = Guards(model, calibrated, image_dependence=image_dependence)
    return LoadedModel(model, calibrated, bundle, folder, guards, 4 * concurrency, price)


def calibrated_card(bundle: Path, card: BundleCard) -> BundleCard | None:
    """The card that `calibrate` wrote for a remote model, where it was asked in the same way; None otherwise."""
    from medical_vqa.schema.bundle_card import CARD_NAME, read_bundle_card

    if not (bundle / CARD_NAME).is_file():
        return None
    written = read_bundle_card(bundle)
    return written if (written.family, written.facts) == (card.family, card.facts) else None


def download_bundle(repository: str) -> Path:
    """The bundle in a repository of the Hugging Face hub, from the hub's local cache or downloaded into it.

    The card comes first: a repository that is no bundle is refused before its weights are downloaded, and of a bundle
    only the files that its card lists are.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    from medical_vqa.schema.bundle_card import read_bundle_card

    name, _, revision = repository.partition("@")
    absent = "card.json, so it is no bundle of this package; load one that `medical-vqa export --to hub` wrote"
    with _explain_hub(repository, absent):
        snapshot = Path(hf_hub_download(name, "card.json", revision=revision or None)).parent
        patterns = ["card.json", *read_bundle_card(snapshot).files]
        return Path(snapshot_download(name, revision=snapshot.name, allow_patterns=patterns))


def download_adapter(repository: str) -> Path:
    """The bundle, or the adapter of another program in PEFT's format, in a repository of the Hugging Face hub."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    name, _, revision = repository.partition("@")
    files = ["adapter_config.json", "adapter_model.safetensors"]
    with _explain_hub(repository, "adapter_config.json, so it is no adapter in PEFT's format; name one that is"):
        snapshot = Path(hf_hub_download(name, files[0], revision=revision or None)).parent
        try:
            hf_hub_download(name, "card.json", revision=snapshot.name)
        except EntryNotFoundError:  # also when offline, with an adapter in the cache that has no card
            folder = Path(snapshot_download(name, revision=snapshot.name, allow_patterns=files))
            if not (folder / files[1]).is_file():
                raise ModelError(
                    f"the repository {repository} holds no {files[1]}: expected an adapter as safetensors; save it "
                    "again with PEFT's save_pretrained"
                ) from None
            return folder
    return download_bundle(f"{name}@{snapshot.name}")


@contextmanager
def _explain_hub(repository: str, absent: str) -> Iterator[None]:
    """Turn the hub's errors into those of this package; `absent` says what the repository lacks, and what to do."""
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,  # of httpx or of httpx2, as the hub's version has it
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except HFValidationError as error:
        raise ConfigError(f"{HUB}{repository} is not a hub repository; write {HUB}USER/NAME") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise _offline(repository) from error
    except EntryNotFoundError as error:
        raise ModelError(f"the repository {repository} holds no {absent}") from error
    except HfHubHTTPError as error:
        raise ModelError(
            f"the hub has no repository {repository} that may be read from here; check the name, or run: hf auth login"
        ) from error
    except (OSError, HTTPError) as error:  # the connection broke during a download
        raise _offline(repository) from error


def _offline(repository: str) -> OfflineError:
    return OfflineError(
        f"{repository} is not in the hub's local cache and the hub cannot be reached; where there is a network, run: "
        f"hf download {repository.partition('@')[0]} --local-dir DIR, and then load DIR"
    )
