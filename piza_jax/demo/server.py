"""The demo's server: on loopback unless told otherwise, files in one temporary folder only, no word to the network."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from piza_jax.convert.load import Loaded
from piza_jax.demo.examples import draw_examples
from piza_jax.demo.service import Limits, Service
from piza_jax.errors import PizaError

LOOPBACK = "127.0.0.1"
# The page's own scripts write styles and start code in line; nothing at all comes from, or goes to, elsewhere.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)


def serve(
    models: Mapping[str, Loaded],
    host: str = LOOPBACK,
    port: int = 7860,
    limits: Limits | None = None,
    num_examples: int = 4,
) -> None:
    """Run the page until it is interrupted.

    Args:
        models: models by the names that the page shows.
        host: address to listen on.
        port: of it.
        limits: of an upload.
        num_examples: drawn examples on the page.

    Raises:
        PizaError: Gradio is not installed, or the port is taken.
    """
    with application(models, limits or Limits(), num_examples) as app:
        import uvicorn

        server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="warning"))
        print(f"open http://{host}:{port}/ in a browser; Ctrl-C ends it", flush=True)
        try:
            server.run()
        except KeyboardInterrupt:  # once the server has ended as it should
            return
        except SystemExit as error:
            raise PizaError(f"cannot listen on {host}:{port}; choose another with --port") from error


@contextlib.contextmanager
def application(models: Mapping[str, Loaded], limits: Limits, num_examples: int = 4) -> Iterator[Any]:
    """The page as an ASGI application; its temporary folder goes when the context is left.

    Raises:
        PizaError: Gradio is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="piza_demo_") as name:
        # Gradio reads these when it is imported.
        os.environ.update(GRADIO_TEMP_DIR=name, GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1")
        os.environ["MPLCONFIGDIR"] = name  # Gradio imports matplotlib where it is installed
        try:
            import fastapi
            import gradio as gr

            from piza_jax.demo import page
        except ModuleNotFoundError as error:
            raise PizaError(
                f'the demo needs {error.name}; install the extra: pip install -c constraints.txt -e ".[demo]"'
            ) from error
        folder = Path(name)
        made = draw_examples(folder, num_examples)
        blocks = page.build(Service(models, folder, limits, made), made)
        app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

        @app.middleware("http")
        async def guard(request: fastapi.Request, follow: Any) -> Any:
            answer = await follow(request)
            answer.headers["Content-Security-Policy"] = _POLICY
            answer.headers["Referrer-Policy"] = "no-referrer"
            return answer

        yield gr.mount_gradio_app(
            app,
            blocks,
            path="/",
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            show_error=False,
            max_file_size=round(limits.megabytes * 1e6),
            theme=page.THEME,
            css=page.CSS,
        )
