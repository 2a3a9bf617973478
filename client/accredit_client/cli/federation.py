"""``accredit federation``: other trust domains, their bundles, and what their agents may ask."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from accredit_client import calls
from accredit_client.answers import RelationshipRecord
from accredit_client.cli import options, output, session
from accredit_client.cli.framework import example, group
from accredit_client.cli.local_files import read_text
from accredit_client.cli.problems import Failed, WrongUsage
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import InvalidSpiffeId
from accredit_credentials.federation import (
    Agents,
    Allowance,
    check_audiences,
    check_https_url,
    check_origin,
)
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain

app = group("Other trust domains, and what their agents may ask.")


class EndpointProfile(StrEnum):
    """How a bundle endpoint shows who it is."""

    WEB = "https_web"
    SPIFFE = "https_spiffe"


_STATES = {"unconfirmed": "given by hand, not confirmed"}

Name = Annotated[str, typer.Argument(metavar="DOMAIN", help="The other trust domain.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="'AGENTS RESOURCE ACTIONS'",
        help="A SPIFFE ID or prefix/*, a resource of ours, actions with commas; repeatable.",
    ),
]


@app.command(
    epilog=example(
        "accredit federation add b.example --url https://b.example/bundle.json \\",
        "    --endpoint-profile https_web",
        "accredit federation add b.example --url https://issuer.b.example:8443/v1/bundle \\",
        "    --endpoint-profile https_spiffe --bundle b.example.json \\",
        "    --endpoint-id spiffe://b.example/accredit/issuer \\",
        "    --allow 'spiffe://b.example/ns/pay/* https://ledger.example.org read,list'",
    )
)
def add(
    domain: Name,
    *,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Its bundle endpoint.")],
    endpoint_profile: Annotated[
        EndpointProfile, typer.Option("--endpoint-profile", help="How the endpoint is known.")
    ],
    endpoint_id: Annotated[
        str | None,
        typer.Option("--endpoint-id", metavar="ID", help="Who serves it, for https_spiffe."),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="FILE",
            help="Its bundle as it is now, for https_spiffe; - is stdin.",
        ),
    ] = None,
    feed: Annotated[
        str | None,
        typer.Option(
            "--feed", metavar="URL", help="Its issuer, https://host[:port], for its facts."
        ),
    ] = None,
    allow: Allow = None,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Trust another trust domain for its own SPIFFE IDs, and fetch its bundle.

    Its agents may ask for nothing but what --allow says. Exit code 1 where the bundle was not
    fetched; the relationship is kept, and asked again.
    """
    name = TrustDomain.parse(domain)
    server = _endpoint(name, endpoint_profile, endpoint_id, given=bundle is not None)
    check_https_url(url, "--url")
    if feed is not None:
        check_origin(feed, "--feed")
    first = None if bundle is None else TrustBundle.parse(name, read_text(bundle, "trust bundle"))
    call = calls.federate(
        trust_domain=name,
        profile=endpoint_profile.value,
        endpoint_url=url,
        endpoint_spiffe_id=server,
        bundle=first,
        feed_url=feed,
        allowances=_allowances(allow),
    )
    with session.open_issuer(profile) as issuer:
        issuer.send(call)
        output.note(f"relationship with {name} made; asking its endpoint for the bundle")
        standing = issuer.send(calls.refresh_federated(name))
    _print_one(standing, as_json=as_json)
    _check_fetched(standing, kept=", the relationship is kept")


@app.command("list", epilog=example("accredit federation list"))
def list_relationships(
    profile: options.Profile = options.DEFAULT_PROFILE, as_json: options.Json = False
) -> None:
    """List the federated trust domains, and how old their bundles are."""
    found = session.ask(profile, calls.federation())
    if as_json:
        output.document(list(map(_document, found)))
        return
    output.table(
        ("DOMAIN", "STATE", "BUNDLE", "AGE", "ALLOWED", "FAILURE"),
        [
            (
                each.trust_domain,
                _STATES.get(each.state, each.state),
                each.bundle and each.bundle.sequence,
                _age(each),
                len(each.allowances),
                each.failure,
            )
            for each in found
        ],
        empty="no federated trust domains",
    )


@app.command(epilog=example("accredit federation show b.example"))
def show(
    domain: Name,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Show one relationship: its terms, its bundle, what went wrong."""
    name = TrustDomain.parse(domain)
    found = session.ask(profile, calls.federation())
    for each in found:
        if each.trust_domain == str(name):
            _print_one(each, as_json=as_json)
            return
    raise Failed(f"there is no relationship with {name}", hint="accredit federation list shows all")


@app.command(
    epilog=example(
        "accredit federation allow b.example \\",
        "    --allow 'spiffe://b.example/ns/pay/agent/payer https://ledger.example.org read'",
        "accredit federation allow b.example --nothing",
    )
)
def allow(
    domain: Name,
    allow: Allow = None,
    nothing: Annotated[bool, typer.Option("--nothing", help="Allow nothing any more.")] = False,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Say what its agents may ask from now on, in place of what was said before."""
    if bool(allow) == nothing:
        raise WrongUsage("say what is allowed with --allow, or --nothing")
    name, allowances = TrustDomain.parse(domain), _allowances(allow)
    standing = session.ask(profile, calls.allow_federated(name, allowances))
    _print_one(standing, as_json=as_json)


@app.command(epilog=example("accredit federation remove b.example"))
def remove(domain: Name, profile: options.Profile = options.DEFAULT_PROFILE) -> None:
    """End a relationship: verifiers accept nothing of it within half a minute."""
    name = TrustDomain.parse(domain)
    session.ask(profile, calls.end_federation(name))
    output.line(f"relationship with {name} ended")
    output.note("verifiers ask for the bundle map every 30 s or sooner")


@app.command(epilog=example("accredit federation refresh b.example"))
def refresh(
    domain: Name,
    profile: options.Profile = options.DEFAULT_PROFILE,
    as_json: options.Json = False,
) -> None:
    """Fetch its bundle now. Exit code 1 where that fails; the last good one stays in use."""
    name = TrustDomain.parse(domain)
    standing = session.ask(profile, calls.refresh_federated(name))
    _print_one(standing, as_json=as_json)
    _check_fetched(standing)


def _endpoint(
    name: TrustDomain, profile: EndpointProfile, text: str | None, *, given: bool
) -> SpiffeId | None:
    """Who serves the bundle; what does not go together is said by the names of the options."""
    if (profile is EndpointProfile.SPIFFE) != (text is not None):
        raise Failed(
            "--endpoint-id must be given with --endpoint-profile https_spiffe, and only then"
        )
    if text is None:
        if given:
            raise Failed("--bundle must be given with --endpoint-profile https_spiffe only")
        return None
    try:
        server = SpiffeId.parse(text)
    except InvalidSpiffeId as error:
        raise Failed(f"--endpoint-id: {error}") from error
    if given and server.trust_domain != name:
        raise Failed(
            f"--endpoint-id is of {server.trust_domain}, the relationship is with {name}",
            hint="a first --bundle is for an endpoint of the other trust domain itself",
        )
    if not given and server.trust_domain == name:
        raise Failed(
            f"--bundle must be given where --endpoint-id is of {name} itself",
            hint="its bundle as it is now, brought by a way that you trust",
        )
    return server


def _allowances(texts: Sequence[str] | None) -> tuple[Allowance, ...]:
    allowances = tuple(map(_allowance, texts or ()))
    check_audiences(allowances, "the resource of --allow")
    return allowances


def _allowance(text: str) -> Allowance:
    match text.split():
        case (agents, resource, actions):
            return Allowance(Agents.parse(agents), resource, tuple(actions.split(",")))
    raise WrongUsage(
        "--allow must be 'AGENTS RESOURCE ACTIONS'",
        hint="such as --allow 'spiffe://b.example/ns/pay/* https://ledger.example.org read,list'",
    )


def _document(standing: RelationshipRecord) -> dict[str, object]:
    members = {name: getattr(standing, name) for name in standing.__slots__}
    allowances = members.pop("allowances")
    return {**members, "allows": [each.to_object() for each in allowances]}


def _age(standing: RelationshipRecord) -> str:
    if standing.age_seconds is not None:
        return f"{standing.age_seconds} s"
    since = "given" if standing.bundle else "waiting"
    return f"{since} {standing.waiting_seconds} s"


def _check_fetched(standing: RelationshipRecord, *, kept: str = "") -> None:
    if standing.failure is not None:
        raise Failed(
            f"the bundle of {standing.trust_domain} was not fetched{kept}: {standing.failure}",
            hint=f"accredit federation refresh {standing.trust_domain} asks again",
        )


def _print_one(standing: RelationshipRecord, *, as_json: bool) -> None:
    if as_json:
        output.document(_document(standing))
        return
    bundle = standing.bundle
    output.pairs(
        {
            "trust_domain": standing.trust_domain,
            "state": _STATES.get(standing.state, standing.state),
            "profile": standing.profile,
            "endpoint": standing.endpoint_url,
            "endpoint_id": standing.endpoint_spiffe_id,
            "feed": standing.feed_url,
            "allows": [
                f"{each.agents} {each.resource} {','.join(each.actions)}"
                for each in standing.allowances
            ],
            "bundle": bundle
            and f"sequence {bundle.sequence}, {bundle.x509_authorities} X.509 authorities, "
            f"{bundle.jwt_authorities} JWT keys",
            "digest": bundle and bundle.digest,
            "fetched": standing.fetched_at,
            "age": _age(standing),
            "asked_every": f"{standing.interval_seconds} s",
        }
    )
    if standing.failure is not None:
        output.note(f"last attempt failed: {standing.failure}")
        which = "the last good" if standing.fetched_at else "the given"
        output.note(
            f"{which} bundle stays in use; asked again every {standing.interval_seconds} s"
            if bundle
            else f"asked again every {standing.interval_seconds} s; accredit federation refresh "
            f"{standing.trust_domain} asks at once"
        )
