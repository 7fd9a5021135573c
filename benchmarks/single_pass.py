"""One look at a whole photo, against transformers: ``python -m benchmarks.single_pass``.

From the pixels of a photo and a sentence to a box on the host. MM-GroundingDINO, Swin-T with BERT-base, batch 1. The
sentence is padded as our library pads it, and not at all for the peer, which has one sentence at a time.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import interleaved, peers, table
from piza_jax.data.preprocess import Preprocessing
from piza_jax.piza.grounding import Grounder

TITLE = "One look at a whole photo, against transformers"
BAR = 1.3


def main(arguments: Sequence[str] | None = None) -> str:
    """Run, print and append; returns the row."""
    parser = interleaved.parser(__doc__)
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="of the photo (800 1066)")
    parser.add_argument("--compile", action="store_true", help="torch.compile the peer, if it can be")
    options = parser.parse_args(arguments)
    height, width = options.size or ((96, 128) if options.small else (800, 1066))
    with interleaved.session(options) as machine, tempfile.TemporaryDirectory() as folder:
        pair = peers.make_pair(Path(folder), options.small, machine)
        view = Preprocessing(min(height, width), max(height, width))  # the photo as it is
        loaded = pair.loaded
        grounder = Grounder(
            loaded.model, loaded.tokenizer, None, loaded.max_tokens, batch_size=1, preprocessing=view, single_pass=True
        )
        photo, words = peers.photo(height, width), peers.token_ids(loaded, peers.SENTENCE)
        look = photo, (height, width), words
        compiled = options.compile and _compiles(pair, machine, look)
        theirs = peers.TorchDetector(pair.model, machine, compiled)
        ours, peer = interleaved.alternate(
            lambda: grounder.ground(photo, peers.SENTENCE), lambda: theirs.best(*look), options.runs
        )
        found, seen = grounder.ground(photo, peers.SENTENCE), theirs.all(*look)
        place = (0, 0, width, height), (height, width)
        apart = peers.apart(found.box, found.score, *place, seen, peers.LIMITS[machine.dtype][1])
        difference = peers.check_apart(*apart, machine.dtype)
    peer_name = "torch.compile" if compiled else "eager"
    shapes = f"{height} x {width}, batch 1, {words.shape[1]} tokens; {'small detector' if options.small else 'Swin-T'}"
    result = table.Result(TITLE, f"{shapes}; peer {peer_name}", ours, peer, BAR, difference)
    return table.report(result, machine, options, table.command("single_pass", arguments))


def _compiles(pair: peers.Pair, machine: interleaved.Machine, look: tuple) -> bool:
    began = time.perf_counter()
    try:
        peers.TorchDetector(pair.model, machine, True).best(*look)
    except Exception as error:  # the many that its compilers raise
        print(f"torch.compile fails, so the peer runs eagerly: {type(error).__name__}: {str(error)[:300]}")
        return False
    print(f"torch.compile took {time.perf_counter() - began:.0f} s")
    return True


if __name__ == "__main__":
    sys.exit(table.program(main))
