"""seqcount: every interleaving of a writer and of readers that look again, or do not."""

from support.locks import Programs, outcomes

from benchframe.dialect import cpu_relax, native
from benchframe.mm.locks import seqcount

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

_, seq_begin, seq_retry, seq_write_begin, seq_write_end = seqcount("version")
raw_seq = seqcount("version").raw_read_seqcount


@native
def seq_writes(mm):
    """Two words under an odd number."""
    seq_write_begin(mm)
    mm.start_brk = mm.start_brk + 1
    mm.brk = mm.brk + 1
    seq_write_end(mm)
    return 0


@native
def seq_reads(mm):
    """Reads until nobody wrote meanwhile; 1 if the words were apart then."""
    start = seq_begin(mm)
    first = mm.start_brk
    second = mm.brk
    while seq_retry(mm, start):
        cpu_relax()
        start = seq_begin(mm)
        first = mm.start_brk
        second = mm.brk
    return int(first != second)


@native
def seq_reads_once(mm):
    """Looks once: 2 given up, 1 torn, 0 good."""
    start = raw_seq(mm)
    if start & 1:
        return 2
    first = mm.start_brk
    second = mm.brk
    if seq_retry(mm, start):
        return 2
    return int(first != second)


@native
def seq_believes(mm):
    """Forgets to look again."""
    seq_begin(mm)
    first = mm.start_brk
    return int(first != mm.brk)


def test_seqcount() -> None:
    """Who looks again never believes a torn pair; who gives up is sometimes told to; who does neither is fooled."""
    words = {"start_brk": 0, "brk": 0}
    assert {e[2] for e in outcomes(Programs([(seq_writes,), (seq_reads,)], words))} == {0}
    assert {e[2] for e in outcomes(Programs([(seq_writes,), (seq_reads_once,)], words))} == {0, 2}
    assert {e[2] for e in outcomes(Programs([(seq_writes,), (seq_believes,)], words))} == {0, 1}
