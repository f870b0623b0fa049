# adarem with FFCV. Build: docker build -t adarem .    Use, and what was tried: docs/containers.md
FROM debian:12.12-slim
COPY pyproject.toml setup.py MANIFEST.in constraints.txt README.md LICENSE /opt/source/
COPY src /opt/source/src
COPY configs /opt/source/configs
COPY slurm /opt/source/slurm
COPY results/paper /opt/source/results/paper
COPY scripts/setup.sh scripts/container-install.sh /opt/source/scripts/
RUN /opt/source/scripts/container-install.sh
# Nothing writes into the image: caches go to HOME, and that to /tmp, for whichever user runs it. USER serves users without a
# name in the image, for whom Python finds none.
ENV PATH=/opt/adarem/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    USER=adarem \
    LC_ALL=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["adarem"]
CMD ["doctor"]
