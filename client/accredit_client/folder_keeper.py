"""An identity in a folder that somebody else keeps fresh, as ``accredit run`` does."""

from datetime import datetime
from pathlib import Path

from accredit_client import renewal
from accredit_client.effects import Clock, Draw
from accredit_client.errors import NotReady
from accredit_client.files import FolderContent, read_folder, version_of
from accredit_client.keeper import Held, Keeper
from accredit_client.talk import Blocking, Talk
from accredit_client.trust import newer
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.x509_svid import validate

FOLDER_POLL = 2.0  # seconds between looks at a folder's link


class FolderKeeper(Keeper):
    """Follows a folder that somebody else keeps fresh."""

    def __init__(self, folder: Path, *, clock: Clock, draw: Draw) -> None:
        super().__init__(clock=clock, draw=draw)
        self._folder = folder
        self._version: str | None = None
        self._look_at: datetime | None = None
        self._url: str | None = None

    @property
    def issuer_url(self) -> str:
        """Where the issuer is, as the folder says."""
        if self._url is None:
            raise NotReady("the folder was not read yet", hint="start the identity first")
        return self._url

    def begin(self) -> Talk:
        """Read the folder."""
        version = version_of(self._folder)
        content: FolderContent = yield Blocking(lambda: read_folder(self._folder))
        url = content.issuer()
        bundle, svid = self._newer_than_held(content.bundle), content.identity.svid
        validate(svid, bundles={bundle.trust_domain: bundle}, now=self.clock())
        self._url = url
        self._version = version
        self._look_at = renewal.later(self.clock(), FOLDER_POLL)
        # The latest that whoever keeps the folder would renew.
        life = renewal.life_of(svid.not_before, svid.not_after, now=self.clock(), draw=lambda: 1.0)
        self._hold(bundle, content.identity, life)
        if self._map_at is None:
            yield from self._first_map()

    def due(self, now: datetime) -> datetime:
        """The next look."""
        return now if self._look_at is None else self._map_due(self._look_at)

    def step(self, now: datetime) -> Talk:
        """Read the folder again if it has another set."""
        if version_of(self._folder) != self._version or self._version is None:
            yield from self.begin()
        elif self._asked or self._overdue:
            # Whoever keeps the folder learns of it later than who follows the feed.
            yield from self._look(self._fetch())
        elif self._map_at is not None and now >= self._map_at:
            yield from self._refresh_map()
            self._succeeded()
        else:
            self._look_at = renewal.later(now, FOLDER_POLL)
            self._succeeded()

    def _fetch(self) -> Talk:
        bundle = yield from self._newest_bundle()
        held = self.last_held()
        self._held = Held(bundle, held.identity, held.life)

    def _newer_than_held(self, bundle: TrustBundle) -> TrustBundle:
        held = self._held
        if held is None or held.bundle.trust_domain != bundle.trust_domain:
            return bundle
        bundle = newer(held.bundle, bundle)
        return held.bundle if bundle == held.bundle else bundle
