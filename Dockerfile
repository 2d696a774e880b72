# The page in a container, on CPU and GPU: pip takes PyTorch's CUDA build on Linux, which runs on either.
#
#   docker build -t mbtsad .
#   docker run --rm -p 7860:7860 -v mbtsad:/home/user/jobs mbtsad
#   docker run --rm -p 7860:7860 -v mbtsad:/home/user/jobs --gpus all mbtsad
#
# A smaller image, for CPU alone: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu -t mbtsad .
FROM python:3.12-slim

ARG TORCH_INDEX=""

# WordNet's files, for the augmenter EDA and the attack LWS; packages.txt says the same to a Gradio Space.
RUN apt-get update && apt-get install -y --no-install-recommends wordnet-base && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 user

USER user
ENV HOME=/home/user \
    PATH=/home/user/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN mkdir /home/user/app /home/user/jobs
WORKDIR /home/user/app

# The dependencies first: a change of the code leaves this layer as it is.
RUN python -m venv /home/user/venv
COPY --chown=user:user requirements.txt constraints.txt ./
RUN if [ -n "$TORCH_INDEX" ]; then pip install -c constraints.txt --index-url "$TORCH_INDEX" torch; fi
RUN pip install -c constraints.txt -r requirements.txt

COPY --chown=user:user pyproject.toml README.md LICENSE app.py ./
COPY --chown=user:user mbtsad_core ./mbtsad_core
COPY --chown=user:user assets ./assets
RUN pip install -c constraints.txt .
RUN python -m compileall -q app.py mbtsad_core

ENV MBTSAD_JOBS=/home/user/jobs \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860
VOLUME ["/home/user/jobs"]
EXPOSE 7860
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['GRADIO_SERVER_PORT'] + '/', timeout=9)"]
CMD ["python", "app.py"]
