# Stand-in for python:3.11-slim-bookworm where no registry can be reached: Debian's Python 3.11
# under the names that the official image uses, with venv, without pip.
FROM debian:bookworm-slim
ENV LANG=C.UTF-8
RUN apt-get update -q \
    && apt-get install -q -y --no-install-recommends \
        ca-certificates python3.11 python3.11-venv \
    && rm -rf /var/lib/apt/lists/* \
    && ln -s /usr/bin/python3.11 /usr/local/bin/python3.11 \
    && ln -s python3.11 /usr/local/bin/python3 \
    && ln -s python3 /usr/local/bin/python
CMD ["python3"]
