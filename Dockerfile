# stopgrad in a container. For a CPU:
#   docker build -t stopgrad .
# For NVIDIA GPUs (run with --gpus all):
#   docker build -t stopgrad:cuda --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 .
# Then: docker run --rm -v "$PWD:/data" stopgrad pretrain --data images/ --out runs/mine --preset cpu
ARG BASE=python:3.12-slim
FROM ${BASE}

# An index of wheels of torch for CPUs alone, which are some GB smaller (pytorch.org names it).
ARG TORCH=
SHELL ["/bin/sh", "-eu", "-c"]

# hadolint ignore=DL3008
RUN if ! command -v python3 >/dev/null; then \
      apt-get update && \
      apt-get install --yes --no-install-recommends python3 python3-venv && \
      rm -rf /var/lib/apt/lists/*; \
    fi && \
    python3 -m venv /opt/stopgrad

COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
# hadolint ignore=DL3013,DL3042
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ -n "${TORCH}" ]; then /opt/stopgrad/bin/pip install torch torchvision --index-url "${TORCH}"; fi && \
    /opt/stopgrad/bin/pip install '/src[pdf,onnx,timm]' && \
    useradd --create-home --uid 10001 stopgrad && \
    mkdir -p /data && chown stopgrad /data

USER 10001
WORKDIR /data
ENTRYPOINT ["/opt/stopgrad/bin/stopgrad"]
CMD ["--help"]
