"""The upstream that the settings name."""

from datetime import datetime

from accredit_issuer.authority.parent import ParentIssuer
from accredit_issuer.authority.upstream import OwnRoot, Upstream, root_from_files
from accredit_issuer.settings import CaInFiles, Config, ParentAt


def open_upstream(config: Config, now: datetime) -> Upstream:
    """Who certifies the issuing CAs; a CA in files is checked as it is at ``now``.

    Raises:
        InvalidSettings: the files cannot be read, or the CA in them cannot be used.
    """
    chosen = config.upstream
    if isinstance(chosen, CaInFiles):
        return root_from_files(config, chosen, now)
    if isinstance(chosen, ParentAt):
        return ParentIssuer(config, chosen)
    return OwnRoot(config)
