"""Offline checks: what a credential says, PASS or FAIL, and why."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from client_cli.workplace import Result, World, accredit, succeed
from support.authority import INSTANCE, MANIFEST, Authority

from accredit_client.effects import utc_now
from accredit_credentials import jwt_svid, task_token
from accredit_credentials.jwt_svid import AgentBlock, JwtSvid
from accredit_credentials.task_token import BEARER, Grant, Task, TaskToken

AUDIENCE = "https://tickets.example.org"
ISSUER = "https://issuer.example.org"


@pytest.fixture
def domain() -> Authority:
    """A trust domain whose credentials are valid now."""
    return Authority(now=utc_now().replace(microsecond=0))


@pytest.fixture
def bundle_file(domain: Authority, tmp_path: Path) -> Path:
    """Its bundle."""
    path = tmp_path / "bundle.json"
    path.write_text(domain.bundle.to_json())
    return path


@pytest.fixture
def token(domain: Authority) -> Callable[..., str]:
    """Signs a task token, good or with something changed."""

    def sign(*, purpose: str = "summarise", ends: timedelta = timedelta(minutes=5)) -> str:
        now: datetime = domain.now
        content = TaskToken(
            issuer=ISSUER,
            principal="user:maria",
            client=domain.id(),
            audience=AUDIENCE,
            jti="4711",
            issued_at=now - timedelta(minutes=10),
            expires_at=now + ends,
            grants=(Grant(resource="tickets", location=AUDIENCE, actions=("read",)),),
            task=Task(id=INSTANCE, purpose=purpose),
            agent=AgentBlock(version="1", instance=INSTANCE, manifest=MANIFEST, assurance="self"),
            binding=BEARER,
        )
        return task_token.sign(content, domain.jwt_key, domain.kid)

    return sign


def check(text: str, bundle: Path, *more: str, audience: str = AUDIENCE) -> Result:
    """``accredit verify token`` with the token on stdin."""
    return accredit(
        "verify", "token", "-", "--trust", bundle, "--audience", audience, "--issuer", ISSUER,
        *more, stdin=text.encode(),
    )  # fmt: skip


def test_svid_of_the_issuer_passes_and_of_another_domain_fails(
    world: World, bundle_file: Path
) -> None:
    """The bundle decides: the same file passes with its own and fails with a stranger's."""
    _, folder = world.attested()
    passed = succeed("verify", "svid", folder / "svid.pem", "--trust", world.bundle_file)
    assert passed.out.splitlines()[-1].startswith("PASS  valid now; revocation was not checked")
    failed = accredit("verify", "svid", folder / "svid.pem", "--trust", bundle_file)
    assert failed.code == 1
    assert failed.out.splitlines()[-1].startswith("FAIL  ")
    assert "spiffe://example.org/ns/support" in failed.out


def test_token_passes_and_its_failing_twins_do_not(
    token: Callable[..., str], bundle_file: Path
) -> None:
    """Wrong audience, over, or changed by a character: FAIL, exit code 1, and what it says."""
    good = token()
    assert check(good, bundle_file).code == 0
    twins = {
        "another audience": check(good, bundle_file, audience="https://other.example.org"),
        "expired": check(token(ends=-timedelta(minutes=1)), bundle_file),
        "signature": check(good[:-6] + ("A" * 6), bundle_file),
    }
    for reason, result in twins.items():
        assert result.code == 1
        assert reason in result.out.splitlines()[-1]
        assert "user:maria" in result.out


def test_jwt_svid_is_checked_by_its_own_rules(domain: Authority, bundle_file: Path) -> None:
    """A JWT-SVID is recognised by its type, and its issuer is compared as well."""
    svid = JwtSvid(
        spiffe_id=domain.id(),
        audience=(AUDIENCE,),
        expires_at=domain.now + timedelta(minutes=5),
        issued_at=domain.now,
        issuer=ISSUER,
    )
    assert check(jwt_svid.sign(svid, domain.jwt_key, domain.kid), bundle_file).code == 0
    other = replace(svid, issuer="https://other.example.org")
    assert check(jwt_svid.sign(other, domain.jwt_key, domain.kid), bundle_file).code == 1


def test_purpose_cannot_move_the_cursor(token: Callable[..., str], bundle_file: Path) -> None:
    """An agent's purpose with ANSI codes in it is printed as text, with and without --json."""
    hostile = token(purpose="\x1b[2J\x1b[1;1HPASS \x9b31m\u202e")
    for more in ([], ["--json"]):
        result = check(hostile, bundle_file, *more)
        assert result.code == 0
        assert all(line.isprintable() for line in result.out.splitlines())
        assert result.out.isascii()


def test_verdict_is_one_document(token: Callable[..., str], bundle_file: Path) -> None:
    """Programs read the verdict, the reason and the claims from one document."""
    verdict = check(token(), bundle_file, "--json").document
    assert verdict["valid"] is True
    assert verdict["says"]["task"]["purpose"] == "summarise"


def test_token_is_not_repeated(token: Callable[..., str], bundle_file: Path) -> None:
    """What is printed cannot be used: the token itself is not there."""
    text = token()
    result = check(text, bundle_file)
    assert text.rpartition(".")[2] not in result.out + result.err


def test_roots_alone_cannot_verify_tokens(
    domain: Authority, token: Callable[..., str], tmp_path: Path
) -> None:
    """A bundle in PEM has no JWT keys: an error that says which file to take."""
    pem = tmp_path / "bundle.pem"
    pem.write_text(domain.bundle.x509_pem)
    result = check(token(), pem)
    assert (result.code, result.out) == (1, "")
    assert "bundle.json" in result.err
