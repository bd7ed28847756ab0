"""The console under ``/console``: a page for support, LiveOps and operators."""
