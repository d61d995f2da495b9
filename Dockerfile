# ddcnn on CPUs:  docker build -t ddcnn .
#                 docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" ddcnn compare --data folder:photos
# ddcnn app listens to 127.0.0.1 alone; on Linux: docker run --rm --network host ... ddcnn app RUN
FROM python:3.12-slim-trixie

ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib

COPY pyproject.toml constraints.txt README.md LICENSE /src/
COPY src /src/src
# PyTorch's own index has builds without CUDA; where both indices have the version, pip prefers its +cpu.
RUN pip install --no-cache-dir --constraint /src/constraints.txt \
        --extra-index-url https://download.pytorch.org/whl/cpu \
        "/src[demo,medical,large,export,explain,app,track]" \
    && rm -rf /src

USER 65534:65534
WORKDIR /work
ENTRYPOINT ["ddcnn"]
CMD ["--help"]
