"""The bytes of every message in version 1 of the wire format, as they were when it was first sent."""

from colo_proto.codec import LinkAck, LinkBarrier, LinkHello, LinkReset, LinkStart
from colo_proto.messages import (
    Answer,
    CheckpointDone,
    CheckpointWanted,
    Demote,
    Drain,
    Flushed,
    Handover,
    HandoverTaken,
    Heartbeat,
    Hello,
    LanAsk,
    LanHeard,
    LanSaid,
    LanSay,
    Lease,
    Leaving,
    Promote,
    Query,
    Report,
    SetMode,
    SetRules,
    Settled,
    Unprotected,
    Welcome,
    WorkerTable,
    Yielded,
)

FRAME = bytes(10) + bytes.fromhex("02000000000102000000000288b5") + b"\x01\x02"

CHATTER = {
    LinkHello("f1.indev", 9, -1): "950101a866312e696e64657609ff",
    LinkAck("m0.outdev", 7, 1002): "950102a96d302e6f757464657607cd03ea",
    LinkReset("m0.outdev", 7, 64): "950103a96d302e6f75746465760740",
    LinkStart("m0.outdev", 7, 1000): "950105a96d302e6f757464657607cd03e8",
    LinkBarrier("f2.outdev", 7, 3): "950106a966322e6f75746465760703",
}

# What version 1 looked like when each message was first sent. These lines are never changed: a message that gets a
# field keeps its line (the field has a default), a new message gets a new line.
GOLDEN = [
    (
        Hello("mirror", "m0", 5, 42, "127.0.0.1:9100"),
        (
            "940104a568656c6c6f85a4726f6c65a66d6972726f72a26964a26d30ab696e6361726e6174696f6e05a37069642aa468747470"
            "ae3132372e302e302e313a39313030"
        ),
    ),
    (
        Welcome(3, "shadow", 8),
        "940104a777656c636f6d6583a565706f636803a46d6f6465a6736861646f77ab696e6361726e6174696f6e08",
    ),
    (
        Report("mirror", "m0", 5, {"frames": 2}, {"held": 0}, {"ready": True}, 42),
        (
            "940104a67265706f727487a4726f6c65a66d6972726f72a26964a26d30ab696e6361726e6174696f6e05a8636f756e74657273"
            "81a66672616d657302a667617567657381a468656c6400a673746174757381a57265616479c3a37069642a"
        ),
    ),
    (
        CheckpointWanted("payload", "tcp 10.0.0.2:80 > 10.0.0.9:5000", 10, {"primary": "41"}, 3, "comp0"),
        (
            "940104b1636865636b706f696e745f77616e74656486a6726561736f6ea77061796c6f6164a4666c6f77bf7463702031302e30"
            "2e302e323a3830203e2031302e302e302e393a35303030a66f66667365740aa664657461696c81a77072696d617279a23431a5"
            "65706f636803a6736f75726365a5636f6d7030"
        ),
    ),
    (
        CheckpointDone(4, state_copied=True),
        "940104af636865636b706f696e745f646f6e6582a565706f636804ac73746174655f636f70696564c3",
    ),
    (
        Flushed(4, "comp0", 2, 1),
        "940104a7666c757368656484a565706f636804a26964a5636f6d7030a872656c656173656402a764726f7070656401",
    ),
    (SetMode("bypass"), "940104a87365745f6d6f646581a46d6f6465a6627970617373"),
    (
        SetRules("pass udp port 123\n"),
        "940104a97365745f72756c657381a572756c6573b2706173732075647020706f7274203132330a",
    ),
    (
        WorkerTable(2, ["comp0", "comp1"], [0, 1, 1, 0]),
        (
            "940104ac776f726b65725f7461626c6583a776657273696f6e02a7776f726b65727392a5636f6d7030a5636f6d7031a5736c6f"
            "74739400010100"
        ),
    ),
    (Drain(), "940104a5647261696e80"),
    (
        Query("mode", {"mode": "shadow"}),
        "940104a5717565727982a477686174a46d6f6465a46172677381a46d6f6465a6736861646f77",
    ),
    (
        Answer(ok=False, body={"a": None}, error="no"),
        "940104a6616e7377657283a26f6bc2a4626f647981a161c0a56572726f72a26e6f",
    ),
    (
        Heartbeat("primary", 5, 6, 3, 1, "enforce", {"version": 2}, {"ready": True}),
        (
            "940104a968656172746265617488a4726f6c65a77072696d617279ab696e6361726e6174696f6e05a5636f756e7406a565706f"
            "636803a566656e636501a46d6f6465a7656e666f726365a57461626c6581a776657273696f6e02a4626f647981a57265616479c3"
        ),
    ),
    (Leaving("comp1"), "940104a76c656176696e6781a26964a5636f6d7031"),
    (
        Handover(3, "comp0", "comp1", 2, last=True, data=b"\x01\x02"),
        (
            "940104a868616e646f76657286a776657273696f6e03a6736f75726365a5636f6d7030a6746172676574a5636f6d7031a470617274"
            "02a46c617374c3a464617461c4020102"
        ),
    ),
    (
        HandoverTaken(3, "comp0", "comp1", 2),
        (
            "940104ae68616e646f7665725f74616b656e84a776657273696f6e03a6736f75726365a5636f6d7030a6746172676574a5636f6d70"
            "31a47061727402"
        ),
    ),
    (Settled("comp1", 3), "940104a7736574746c656482a26964a5636f6d7031a776657273696f6e03"),
    (Promote(2, "secondary"), "940104a770726f6d6f746582a566656e636502a473696465a97365636f6e64617279"),
    (Demote(3), "940104a664656d6f746581a566656e636503"),
    (Lease(12.5, 2), "940104a56c6561736582a5756e74696ccb4029000000000000a566656e636502"),
    (Yielded(3), "940104a77969656c64656481a566656e636503"),
    (
        LanSay(FRAME, 7),
        "940104a76c616e5f73617982a56672616d65c41a0000000000000000000002000000000102000000000288b50102a5636f756e7407",
    ),
    (LanSaid(7), "940104a86c616e5f7361696481a5636f756e7407"),
    (
        LanHeard(FRAME),
        "940104a96c616e5f686561726481a56672616d65c41a0000000000000000000002000000000102000000000288b50102",
    ),
    (
        Unprotected("comp0", 3, True, [b"\x06abc"], [b"\x06d"], [], True),
        (
            "940104ab756e70726f74656374656487a6736f75726365a5636f6d7030a776657273696f6e03a5616761696ec3a46c6f737491c4040661"
            "6263a8646f75627466756c91c4020664a46b65707490aa65766572797468696e67c3"
        ),
    ),
    (
        LanAsk(FRAME, 12.5),
        (
            "940104a76c616e5f61736b82a56672616d65c41a0000000000000000000002000000000102000000000288b50102a5756e74696ccb4029"
            "000000000000"
        ),
    ),
]
