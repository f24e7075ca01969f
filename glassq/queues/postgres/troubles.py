"""What goes wrong with PostgreSQL, by its own code or words, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from glassq import host
from glassq.database.rights import init_command
from glassq.errors import JobTooBig, NoProof, NotDurable, QueueRefused, QueueUnavailable, WrongTables
from glassq.queues.base import Fact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glassq.errors import QueueError
    from glassq.values import QueueUrl

# what is said instead names the role and the database
_RIGHTS = "grant it"
# where systemd runs; else it is started as it was before
_SYSTEMCTL = " (systemctl start postgresql)"
_START = f"start it{_SYSTEMCTL}, or mend [queue] url"
_PASSFILE = (
    "mend it in the passfile (~/.pgpass, or passfile= in [queue] url; host, port, database and role must match; mode "
    "0600), or in the URL where it stands there"
)
_HBA = "add a line for this host, role and database to the server's pg_hba.conf, then SELECT pg_reload_conf()"
_DATABASE = "CREATE DATABASE it, or mend [queue] url"
_CONNECTIONS = "raise max_connections or the role's CONNECTION LIMIT, or look at who uses them: pg_stat_activity"
_STARTING = "wait; its log says how far it is"
_PRIMARY = (
    "name the primary in [queue] url, or all hosts with commas between them: then the one that takes writes is found "
    "(target_session_attrs=read-write); or switch default_transaction_read_only off"
)
_NONE_OF_THEM = "start the primary, or promote a standby once it is sure that the primary is down"
_DISK = "make room on the server's disk (old WAL goes by itself once no slot keeps it): it then takes jobs again"

_HOST = ("queue", "mend the host in [queue] url, or the name service")
_OPTIONS = ("queue", "mend [queue] url: libpq knows no such option, or no such value of it")

# What a standby says to whoever wants to write.
_STANDBYS = ("session is read-only", "server is in hot standby mode", "takes no writes")

# By SQLSTATE (PostgreSQL's documentation, appendix A), or its class: the check's name, and what to do.
BY_STATE = {
    "53100": ("disk", _DISK),
    "53200": ("memory", "give the server more memory, or fewer connections"),
    "53300": ("connections", _CONNECTIONS),
    "25006": ("primary", _PRIMARY),
    "42501": ("rights", _RIGHTS),
    "3D000": ("database", _DATABASE),
    "28P01": ("password", _PASSFILE),
    "28000": ("access", _HBA),
    "57014": ("queue", "see what cancels statements: the role's statement_timeout, or an administrator"),
    "57P01": ("queue", "it was stopped, or the connection ended by an administrator; it is tried again by itself"),
    "57P02": ("queue", "a process of the server crashed: look at its log; it is tried again by itself"),
    "57P03": ("queue", _STARTING),
    "40P01": ("queue", "try again: two commands locked each other out"),
    "58030": ("disk", "look at the server's log and its disk"),
    "XX001": ("damage", "stop writing, look at the server's log, and restore a backup"),
    "XX002": ("damage", "REINDEX TABLE glassq_jobs, and look for the cause in the server's log and its disk"),
}
# What says more than its SQLSTATE.
_FIRST = {
    "permission denied for schema": ("rights", "ask as a role that may make tables: --url, with the database's owner"),
    "no schema has been selected": ("rights", "make the schema that search_path names, or mend [queue] url"),
}
# A connection that was not made has no SQLSTATE in libpq, only words.
BY_WORDS = {
    "too many connections": BY_STATE["53300"],
    "too many clients": BY_STATE["53300"],
    "remaining connection slots": BY_STATE["53300"],
    "password authentication failed": BY_STATE["28P01"],
    "no password supplied": BY_STATE["28P01"],
    "no pg_hba.conf entry": BY_STATE["28000"],
    "pg_hba.conf rejects": BY_STATE["28000"],
    "Peer authentication failed": ("access", "ask as that user, or name a role and a host in [queue] url"),
    "Ident authentication failed": ("access", "ask as that user, or name a role and a host in [queue] url"),
    "is not permitted to log in": ("access", "ALTER ROLE it WITH LOGIN"),
    'role "': ("access", "CREATE ROLE it WITH LOGIN, or mend [queue] url"),
    'database "': BY_STATE["3D000"],
    "the database system is": BY_STATE["57P03"],
    "permission denied for": BY_STATE["42501"],
    "session is read-only": BY_STATE["25006"],
    "session is not read-only": BY_STATE["25006"],
    "server is in hot standby mode": BY_STATE["25006"],
    "takes no writes": BY_STATE["25006"],
    "fsync is": ("durability", "set fsync = on in postgresql.conf, then SELECT pg_reload_conf()"),
    "could not translate host name": _HOST,
    "failed to resolve host": _HOST,
    "invalid URI": _OPTIONS,
    "connection option": _OPTIONS,
    "certificate": ("tls", "mend sslrootcert or sslmode in [queue] url, or the server's certificate"),
    "SSL": ("tls", "mend sslmode in [queue] url, or switch ssl on in postgresql.conf"),
    "pooler": ("pooler", "name PostgreSQL itself in [queue] url, not pgbouncer"),
    "Connection refused": ("queue", _START),
    "No such file": ("queue", _START),
    "timeout expired": ("queue", "see whether its host is up, and whether a firewall drops packets to it"),
    "timed out": ("queue", "it hangs, or waits for its standbys: look at its log and its disk"),
}
_BY_KIND: list[tuple[type[Exception], str, str]] = [
    (NoProof, "standbys", "start the synchronous standbys, or look at their logs"),
    (NotDurable, "durability", "look at synchronous_commit, at the standbys, and at the server's log"),
    (QueueRefused, "queue", "look at the server's log: it then takes jobs again by itself"),
    (JobTooBig, "job size", "make the delivery smaller"),
    (QueueUnavailable, "queue", _START),
]


def explained(error: QueueError, url: QueueUrl) -> Fact:
    """The error of a call, with what to do about it."""
    if isinstance(error, WrongTables):
        return Fact("schema", False, error.said, error.todo)
    said = str(error)
    if _names_many_hosts(url) and any(words in said for words in _STANDBYS):
        return Fact("primary", False, said, _NONE_OF_THEM)
    name, todo = _known(getattr(error.__cause__, "sqlstate", None) or "", said) or _by_kind(error, url)
    if todo == _RIGHTS:
        todo = f"{init_command(urlsplit(url).username or 'ROLE', url)} grants it"
    if not host.has_systemd():
        todo = todo.replace(_SYSTEMCTL, "")
    return Fact(name, False, said, todo)


def _names_many_hosts(url: QueueUrl) -> bool:
    return "," in url.partition("?")[0]


def _known(state: str, said: str) -> tuple[str, str] | None:
    return _by_words(_FIRST, said) or BY_STATE.get(state) or _by_words(BY_WORDS, said)


def _by_words(table: Mapping[str, tuple[str, str]], said: str) -> tuple[str, str] | None:
    return next((known for words, known in table.items() if words in said), None)


def _by_kind(error: QueueError, url: QueueUrl) -> tuple[str, str]:
    found = ((name, todo) for kind, name, todo in _BY_KIND if isinstance(error, kind))
    return next(found, ("queue", f"is that PostgreSQL, at {url}? Its log may say more"))
