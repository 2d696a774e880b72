"""`mbtsad publish`"""

from __future__ import annotations

import argparse
from pathlib import Path

from mbtsad_core.terminal import DONE


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("space", metavar="OWNER/NAME", help="the Space; it is made where it is not there")
    parser.add_argument("--folder", metavar="DIR", default=".", help="the checkout (default: here)")
    parser.add_argument(
        "--docker", action="store_true", help="a Docker Space, built by the Dockerfile, and not a Gradio Space"
    )
    parser.add_argument("--private", action="store_true", help="for its owner alone, where the Space is new")
    parser.add_argument(
        "--hardware",
        metavar="FLAVOUR",
        help="cpu-basic, zero-a10g (ZeroGPU), t4-small and others, where the Space is new",
    )
    parser.add_argument("--dry-run", action="store_true", help="list the files and their sizes, and publish nothing")


def run(args: argparse.Namespace) -> int:
    """Publish the page from a checkout as a Space on Hugging Face, with a token that `hf auth login` or HF_TOKEN gave.
    Run again, it brings the Space up to date."""
    from mbtsad_core.publish import check_name, project_files, publish

    folder = Path(args.folder)
    check_name(args.space)
    if args.dry_run:
        sizes = {path: (folder / path).stat().st_size for path in project_files(folder, docker=args.docker)}
        for path, size in sizes.items():
            print(f"{size:>12,}  {path.as_posix()}")
        where = f"https://huggingface.co/spaces/{args.space}"
        print(f"{sum(sizes.values()):>12,}  bytes in {len(sizes)} files would go to {where}")
        return DONE
    print(f"Published: {publish(args.space, folder, docker=args.docker, private=args.private, hardware=args.hardware)}")
    return DONE
