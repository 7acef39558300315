"""The sign-up demo over HTTP: `make api`, then http://127.0.0.1:8000/scalar."""
