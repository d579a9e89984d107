"""What a person does next: one sentence for each error, with the exact command where there is one."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from regfs import errors
from regfs.reference import Address

_sign_ins: Final[dict[str, Callable[[], Sequence[str]]]] = {}
"""For each registry opened here, the options without which `regfs login` would sign in to it otherwise."""


def remember_sign_in(registry: str, options: Callable[[], Sequence[str]]) -> None:
    """Have advice about a registry name the ``options`` (asked for when they are needed) of its `regfs login`."""
    _sign_ins[registry] = options


def advice(error: errors.RegfsError) -> str:
    """One sentence that says what to do about ``error``."""
    for kind in type(error).__mro__:
        sentence = _SENTENCES.get(kind)
        if sentence is not None:
            return sentence(error)
    return "Run `regfs mount -f -vv …` to see more, and report what it prints."


def _registry(error: errors.RegfsError) -> str:
    """The registry as it stands in a command."""
    return shlex.quote(error.registry) if error.registry else "REGISTRY"


def _login(error: errors.RegfsError, *more: str) -> str:
    """The command that signs in to the registry, with the options of its connection: ``regfs login …``."""
    remembered = _sign_ins.get(error.registry)
    options = [shlex.quote(word) for word in remembered()] if remembered is not None else []
    return " ".join(["regfs login", *options, *more, _registry(error)])


def _speaks_http(error: errors.RegfsError) -> bool:
    """Whether the registry's name is a host's; ``oci:/srv/images`` is none."""
    try:
        return not error.registry or bool(Address.parse(error.registry))
    except ValueError:
        return False


def _always(sentence: str) -> Callable[[errors.RegfsError], str]:
    return lambda _error: sentence


def _not_found(error: errors.RegfsError) -> str:
    return (
        f"Look at what is there with `regfs ls {_registry(error)}`; after a push elsewhere, "
        "`regfs refresh` makes a mount look again."
    )


def _not_signed_in(error: errors.RegfsError) -> str:
    return f"Run `{_login(error)}`; a mount that is up notices it without a remount."


def _sign_in_ended(error: errors.RegfsError) -> str:
    name = error.connection if isinstance(error, errors.SignInEnded) else ""
    return f"Run `regfs reconnect {shlex.quote(name) if name else 'NAME'}`; a mount that is up goes on without a remount."


def _forbidden(error: errors.RegfsError) -> str:
    return (
        "Ask whoever runs the registry for this permission, or sign in as somebody who has it: "
        f"`{_login(error, '--username', 'USER')}`."
    )


def _listing_refused(error: errors.RegfsError) -> str:
    return (
        f'Walk to a repository by its full name, name some in the config (`namespaces = ["team"]`), or run '
        f"`{_login(error)}` as somebody who may list."
    )


def _deletion_disabled(error: errors.RegfsError) -> str:
    setting = error.setting if isinstance(error, errors.DeletionDisabled) else ""
    switch = f"set `{setting}`" if setting else "switch deletion on"
    return f"Have whoever runs {_registry(error)} {switch} and restart it; nothing was deleted."


def _rate_limited(error: errors.RegfsError) -> str:
    after = error.retry_after if isinstance(error, errors.RateLimited) else None
    wait = f"Wait {max(1, round(after))} seconds" if after is not None else "Wait some minutes"
    return f"{wait} and try again, or sign in for a larger quota: `{_login(error)}`."


def _unknown_host(error: errors.RegfsError) -> str:
    return (
        "Check how the registry's name is spelled, and what answers for it: "
        f"`getent hosts {_host(error)}`; `regfs registries` shows the connections."
    )


def _connection_failed(error: errors.RegfsError) -> str:
    if not _speaks_http(error):
        return (
            f"Check that {_registry(error)} is spelled right, is there, and may be read by you; "
            "a mount that is up goes on by itself once it is."
        )
    return (
        f"Check that the registry is up and that host and port are right: `curl -v https://{_registry(error)}/v2/`; "
        "behind a proxy, set HTTPS_PROXY. A mount that is up goes on by itself once it answers."
    )


def _tls_failed(error: errors.RegfsError) -> str:
    if "client certificate" in error.message:
        return (
            "Name one that its authority vouches for with "
            f"`{_login(error, '--client-cert FILE', '--client-key FILE')}`."
        )
    return (
        f"Give the certificate authority's file with `{_login(error, '--ca FILE')}`, or, only where "
        f"nobody can listen in, run `{_login(error, '--insecure')}`."
    )


def _not_a_registry(error: errors.RegfsError) -> str:
    if not _speaks_http(error):
        return (
            f"Look at what {_registry(error)} is: not what its kind of registry is made of; "
            "`regfs plugins` shows which kinds there are."
        )
    return (
        f"Check host, port and path with `curl -i https://{_registry(error)}/v2/`, which a registry answers with 200 "
        "or 401; one below a path is spelled `regfs login HOST/PATH`."
    )


def _unsafe_target(_error: errors.RegfsError) -> str:
    return (
        "If you trust that host to answer for the registry, name it: `-o allow_hosts=HOST` for this mount, or "
        '`allow_hosts = ["HOST"]` in its `[registries.NAME]` in the config.'
    )


def _credential_error(error: errors.RegfsError) -> str:
    return (
        "Mend that source, or give the credentials in a file of your own: "
        f"`regfs mount -o credentials=FILE {_registry(error)} DIR`."
    )


def _config_error(error: errors.RegfsError) -> str:
    if isinstance(error, errors.ConfigError) and error.in_file:
        return "Mend what the message names, then run `regfs config --check`."
    return (
        "Mend what the message names, and run the same command again; `--help` behind it says what it takes."
    )


def _host(error: errors.RegfsError) -> str:
    """The host alone, without port and path."""
    authority = error.registry.partition("/")[0]
    host = authority[1:].partition("]")[0] if authority.startswith("[") else authority.partition(":")[0]
    return shlex.quote(host) if host else "HOST"


_SENTENCES: Final[Mapping[type[BaseException], Callable[[errors.RegfsError], str]]] = {
    errors.NotFound: _not_found,
    errors.NotSignedIn: _not_signed_in,
    errors.CredentialRefused: _not_signed_in,
    errors.SignInEnded: _sign_in_ended,
    errors.Forbidden: _forbidden,
    errors.ListingRefused: _listing_refused,
    errors.AccessDenied: _not_signed_in,
    errors.ReadOnly: _always(
        "To delete tags, unmount and mount again with --rw: `regfs umount DIR && regfs mount --rw REGISTRY DIR`."
    ),
    errors.Unsupported: _always(
        "This cannot be done here; `regfs plugins` shows which kinds of registry are installed, should another fit."
    ),
    errors.WriteRefused: _always(
        "Push and tag with another tool, such as `skopeo copy`; here nothing was changed."
    ),
    errors.Refused: _always("Delete a whole tag with `rm -r TAG` or `regfs rm REF`; nothing was changed."),
    errors.DeletionDisabled: _deletion_disabled,
    errors.Moved: _always(
        "Somebody pushed meanwhile: look at the tag again (`regfs refresh DIR && cat TAG/digest`), then repeat."
    ),
    errors.HalfDeleted: _always(
        "Where the deletion was begun, mount that registry with --rw: that finishes or undoes it; or push the tag anew."
    ),
    errors.Overloaded: _always(
        "Wait for the calls under way, or start fewer at once; `regfs status` shows how many there are."
    ),
    errors.RateLimited: _rate_limited,
    errors.DigestMismatch: _always(
        "Don't use this content: the registry, or something between, damaged or replaced it; push the image again."
    ),
    errors.TooLarge: _always(
        "Nothing was read beyond the limit; ask whoever runs the registry what this is before you trust it."
    ),
    errors.DeadlineExceeded: _always(
        "Try again; if the registry is slow by nature, mount with more time: `regfs mount -o call_deadline=120 …`."
    ),
    errors.Unreachable: _connection_failed,
    errors.UnknownHost: _unknown_host,
    errors.ConnectionFailed: _connection_failed,
    errors.TlsFailed: _tls_failed,
    errors.BadReply: _always(
        "Report it to whoever runs the registry, with this line; other repositories are not concerned."
    ),
    errors.NotARegistry: _not_a_registry,
    errors.PagingLoop: _always(
        "Report it to whoever runs the registry; names walked to in full still resolve, as do `namespaces` in the config."
    ),
    errors.UnsafeTarget: _unsafe_target,
    errors.ServerFailed: _always(
        "Look into the registry's own log, then try again; a mount that is up goes on by itself once it answers."
    ),
    errors.FileError: _always(
        "Name a file where a file is meant, and a folder where a folder is; see `ls -l`."
    ),
    errors.NotEmpty: _always(
        "Delete a tag or a repository with all in it by `rm -r`; rmdir never deletes anything."
    ),
    errors.IsADirectory: _always("Name a file in it, such as `cat TAG/manifest.json`."),
    errors.NotADirectory: _always("Read it as the file that it is: `cat FILE`."),
    errors.ModeForbids: _always("Its mode says what can be done with it: `ls -ld FILE`."),
    errors.Replaced: _always("Open the file by its name once more: that stands for new bytes now."),
    errors.NoSuchAttribute: _always("List the attributes that there are with `getfattr -d FILE`."),
    errors.AttributeUnsupported: _always(
        "Only attributes whose name starts with `user.` are here: `getfattr -d FILE`."
    ),
    errors.CredentialError: _credential_error,
    errors.ConfigError: _config_error,
    errors.PluginError: _always(
        "See `regfs plugins` for the reason, and mend or remove that package with pip."
    ),
    errors.NoSuchPlugin: _always(
        "Name one of those that there are: `regfs plugins` shows what each is; another has to be installed beside regfs."
    ),
    errors.MountError: _always("Do what the message says, then run the same `regfs` command again."),
}
