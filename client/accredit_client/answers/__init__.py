"""What the issuer answers, as typed values (docs/api.md).

``members`` reads one JSON object; each other module has the answers about one subject. Nothing here
is trusted beyond its form: certificates and signed statements are verified where they are used.
"""

from accredit_client.answers.admins import Admin, SignerRecord, WhoamiAnswer
from accredit_client.answers.agents import (
    AgentRecord,
    DeclaredResource,
    JoinTokenAnswer,
    ManifestRecord,
)
from accredit_client.answers.authorities import AuthorityRecord, SubordinateRecord
from accredit_client.answers.credentials import (
    JwtAnswer,
    NonceAnswer,
    TaskTokenAnswer,
    WitAnswer,
    X509Answer,
)
from accredit_client.answers.federation import FederatedBundle, RelationshipRecord
from accredit_client.answers.log import Explanation, LogEntry, LogPage
from accredit_client.answers.members import Members
from accredit_client.answers.nodes import (
    InstanceProblem,
    InstanceState,
    NodeJoinTokenAnswer,
    NodeRecord,
    instance_outcome,
)
from accredit_client.answers.revocation import (
    ConfirmationsAnswer,
    FactRecord,
    NamedVerifiers,
    PreviewAnswer,
    UnnamedVerifiers,
    VerifierRecord,
)
from accredit_client.answers.status import (
    CrlRecord,
    DutyRecord,
    FactCount,
    FeedStatus,
    StatusAnswer,
)
from accredit_client.answers.streams import StreamRecord

__all__ = [
    "Admin",
    "AgentRecord",
    "AuthorityRecord",
    "ConfirmationsAnswer",
    "CrlRecord",
    "DeclaredResource",
    "DutyRecord",
    "Explanation",
    "FactCount",
    "FactRecord",
    "FederatedBundle",
    "FeedStatus",
    "InstanceProblem",
    "InstanceState",
    "JoinTokenAnswer",
    "JwtAnswer",
    "LogEntry",
    "LogPage",
    "ManifestRecord",
    "Members",
    "NamedVerifiers",
    "NodeJoinTokenAnswer",
    "NodeRecord",
    "NonceAnswer",
    "PreviewAnswer",
    "RelationshipRecord",
    "SignerRecord",
    "StatusAnswer",
    "StreamRecord",
    "SubordinateRecord",
    "TaskTokenAnswer",
    "UnnamedVerifiers",
    "VerifierRecord",
    "WhoamiAnswer",
    "WitAnswer",
    "X509Answer",
    "instance_outcome",
]
