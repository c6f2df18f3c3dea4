"""A folder for the Hub -> a model repository there, by the Hub's own client."""

from __future__ import annotations

import os
import re
from pathlib import Path
from shlex import quote

from stopgrad.errors import ConfigError, DataError
from stopgrad.storage import first_line


def check_repository(name: str) -> None:
    """Refuses a name other than OWNER/NAME, by a ConfigError, before anything is written."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name, re.ASCII):
        raise ConfigError(
            f"--push {name}",
            expected="OWNER/NAME of a model on the Hub, of letters, digits, '-', '_' and '.'",
        )


def push_folder(folder: Path, name: str) -> str:
    """Uploads a folder as one commit; creates the repository if there is none.

    The token is that of `hf auth login` or HF_TOKEN, the server that of HF_ENDPOINT if set.

    Returns:
        The address of the model.

    Raises:
        DataError: When the Hub does not accept it; the folder stays.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        made = api.create_repo(name, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, commit_message="Upload by stopgrad export"
        )
    # The client has raised errors of requests, httpx and httpx2 over its versions, which have no
    # common root but Exception; only calls of the client stand in this block.
    except Exception as error:
        raise DataError(
            f"the Hub did not accept {name} ({first_line(error)})",
            expected="a token that may write there",
            hint=f"log in with: hf auth login, then: hf upload {quote(name)} {quote(str(folder))}",
        ) from error
    return str(made)
