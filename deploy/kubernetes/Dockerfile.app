# Rendered by `medical-vqa deploy kubernetes`: the page.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
COPY packages/ ./
RUN python -m venv /opt/medical-vqa \
    && /opt/medical-vqa/bin/pip install --no-cache-dir --constraint constraints.txt "./medical_vqa-0.2.0-py3-none-any.whl[app]" \
    && /opt/medical-vqa/bin/pip uninstall --yes --quiet pip setuptools

FROM python:3.11.14-slim-bookworm
LABEL org.opencontainers.image.title="medical-vqa page" \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.description="Research software: not a medical device and not for diagnosis."
RUN useradd --no-log-init --create-home --uid 1000 app \
    && install --directory --owner=1000 --group=1000 /images
COPY --from=build /opt/medical-vqa /opt/medical-vqa
ENV PATH=/opt/medical-vqa/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/home/app \
    PORT=8501
WORKDIR /home/app
USER 1000
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/_stcore/health\", timeout=4)"]
CMD ["medical-vqa", "app", "--streamlit", "--host", "0.0.0.0"]
