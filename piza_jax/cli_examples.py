"""Examples that ``--help`` of each command ends with; the tests parse every one of them."""

import argparse

EXAMPLES: dict[str, tuple[str, ...]] = {
    "train": (
        "piza train --config=configs/scenes.py --workdir=out/scenes",
        "piza train --config=configs/piza_sorec.py:peft=piza_lora --config.data.data_dir=DATA --workdir=OUT",
        "piza train --config=configs/piza_sorec.py:smoke --workdir=OUT",
    ),
    "ground": (
        'piza ground PHOTO.jpg "The red car." --checkpoint=OUT --save=zoom.png',
        'piza ground PHOTO.jpg "The red car." --checkpoint=OUT --beam=3 --json',
        'piza ground PHONE.jpg "The red car." --checkpoint=OUT --orientation=upright --save=zoom.gif',
    ),
    "detect": ('piza detect PHOTO.jpg "a cat. a remote control." --checkpoint=OUT --save=boxes.png',),
    "evaluate": (
        "piza evaluate --checkpoint=OUT --data_dir=DATA --split=val --details --report=report",
        "piza evaluate --checkpoint=OUT --data_dir=DATA --split=val --method=piza --method=sliding:1024:0.2",
        "piza evaluate --checkpoint=OUT --data_dir=DATA --split=val --curve=curve --curve_canvases=512,768",
        "piza evaluate --predictions=found.jsonl --annotations=val.json",
    ),
    "tune": (
        "piza tune --checkpoint=OUT --data_dir=DATA --split=val --output=zoom.json",
        "piza tune --checkpoint=OUT --data_dir=DATA --beams 1 3 5 --stops 0.95 --backtracks 0 --output=zoom.json",
    ),
    "plan": (
        "piza plan --config=configs/piza_sorec.py:tpu --topology=v5e:16x16 --batch=1024",
        "piza plan --config=configs/piza_sorec.py:smoke --batch=8",
    ),
    "data": (
        "piza data --draw=street.jpg --scene=3",
        "piza data --data_dir=DATA --dataset=own --split=train --preview=sheet.html",
    ),
    "doctor": ("piza doctor", "piza doctor --data_dir=DATA --dataset=sorec_mini --checkpoint=OUT --json"),
    "demo": ("piza demo --checkpoint=OUT", "piza demo --checkpoint=OUT --checkpoint=OTHER --port=8000"),
    "convert": (
        "piza convert IDEA-Research/grounding-dino-tiny TARGET --report",
        "piza convert OUT TARGET --to=adapter --base=BASE",
    ),
    "export": (
        "piza export TARGET --checkpoint=OUT",
        "piza export TARGET --checkpoint=OUT --batch=4 --platforms=cpu,cuda --photo_hw=3072,4096 --max_steps=3",
    ),
    "version": ("piza version",),
}


def add_examples(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """End the help of each command with its examples."""
    for name, parser in commands.choices.items():
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.epilog = "\n".join(("examples:", *(f"  {line}" for line in EXAMPLES[name])))


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks for completions, where argcomplete is installed (the extra ``completion``)."""
    try:
        import argcomplete
    except ModuleNotFoundError:
        return
    argcomplete.autocomplete(parser)
