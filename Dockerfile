# The server without PyTorch. A run is mounted at /run-folder, exported before: palate export RUN.
#
#   docker build -t palate .
#   docker run -p 127.0.0.1:8000:8000 -v ./runs/demo:/run-folder:ro -v palate-events:/events \
#       -e PALATE_READ_KEY -e PALATE_WRITE_KEY -e PALATE_ADMIN_KEY palate
FROM python:3.13-slim AS built
WORKDIR /source
RUN python -m venv /palate
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY palate palate
RUN /palate/bin/pip install --no-cache-dir -c constraints.txt ".[serve,postgresql]"

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home palate && mkdir /events && chown palate /events
COPY --from=built /palate /palate
USER palate
ENV PATH=/palate/bin:$PATH PYTHONUNBUFFERED=1
VOLUME /events
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/ready', timeout=2)"]
ENTRYPOINT ["palate", "serve", "/run-folder", "--host", "0.0.0.0", "--json-logs"]
CMD ["--store", "sqlite:////events/events.db"]
