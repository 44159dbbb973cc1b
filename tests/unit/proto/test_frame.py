"""The ten bytes in front of every frame."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checksums import needs_csum
from colo_proto import frame as f
from colo_proto.frame import plain
from craft import VnetHdr

u8, u16 = st.integers(0, 255), st.integers(0, 65535)


@given(st.builds(VnetHdr, u8, u8, u16, u16, u16, u16))
def test_there_and_back(hdr):
    assert len(hdr.encode()) == f.VNET_HDR_LEN
    assert VnetHdr.of(hdr.encode() + b"frame") == hdr
    assert VnetHdr.of(memoryview(hdr.encode())) == hdr


def test_the_layout_is_that_of_the_kernel():
    # linux/virtio_net.h: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset; little-endian.
    hdr = VnetHdr(f.F_NEEDS_CSUM, f.GSO_TCPV6 | f.GSO_ECN, 0x0102, 0x0304, 0x0506, 0x0708)
    assert hdr.encode() == bytes.fromhex("01 84 0201 0403 0605 0807")
    assert (f.GSO_TCPV4, f.GSO_UDP, f.GSO_TCPV6, f.GSO_UDP_L4) == (1, 3, 4, 5)


def test_a_frame_without_offloads():
    assert plain(b"ethernet") == bytes(10) + b"ethernet"
    assert type(plain(memoryview(b"ethernet"))) is bytes
    assert VnetHdr.of(f.NO_OFFLOAD) == VnetHdr()


@pytest.mark.parametrize(("flags", "needs"), [(0, False), (1, True), (2, False), (3, True)])
def test_needs_csum(flags, needs):
    assert needs_csum(VnetHdr(flags).encode()) is needs


def test_bounds():
    assert f.MIN_FRAME == 10 + 14
    # Two tags, and the largest IP packet; QEMU's bound on its byte streams is larger.
    assert f.MAX_FRAME == 10 + 14 + 4 + 8 + 65535
