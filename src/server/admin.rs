//! The admin listener: what a configuration changes of it, and putting that into force.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::{START, Server, cannot_listen};
use crate::admin;
use crate::net::listener::{bind, listen, nobody_listens};
use crate::tasks::keep;

/// The admin listener at work.
pub(super) struct AdminListener {
    /// The configured address, which may have port 0.
    address: SocketAddr,
    /// The address that it is bound to.
    pub(super) bound: SocketAddr,
    pub(super) closed: CancellationToken,
}

/// What becomes of the admin listener.
pub(super) enum AdminChange {
    Close,
    Keep,
    Open(SocketAddr, std::net::TcpListener),
}

impl Server {
    pub(super) fn plan_admin(&self, address: Option<SocketAddr>) -> anyhow::Result<AdminChange> {
        let running = self.admin_listener.as_ref().map(|admin| admin.address);
        match address {
            None => Ok(AdminChange::Close),
            Some(_) if running == address => Ok(AdminChange::Keep),
            Some(address) => {
                let context = || cannot_listen("the admin listener", address);
                let passed = self.manager.listener("admin", address);
                // Two processes on one address would each answer half of the probes and scrapes.
                let alone = || {
                    if running.is_none() {
                        nobody_listens(address)?;
                    }
                    let socket = bind(address)?;
                    listen(&socket)?;
                    Ok(socket)
                };
                let socket = passed.unwrap_or_else(alone);
                Ok(AdminChange::Open(address, socket.with_context(context)?))
            }
        }
    }

    pub(super) fn apply_admin(&mut self, change: AdminChange) {
        let (address, socket) = match change {
            AdminChange::Keep => return,
            AdminChange::Close => {
                if self.admin_listener.is_some() {
                    tracing::info!(target: START, listener = "admin", "no longer listening");
                }
                (None, None)
            }
            AdminChange::Open(address, socket) => (Some(address), Some(socket)),
        };
        if let Some(old) = self.admin_listener.take() {
            old.closed.cancel();
        }
        let listener = socket.map(tokio::net::TcpListener::from_std);
        let (address, listener) = match (address, listener) {
            (Some(address), Some(Ok(listener))) => (address, listener),
            (_, Some(Err(error))) => {
                return tracing::error!(%error, "the admin socket cannot be listened on");
            }
            (None, _) | (_, None) => return,
        };
        let closed = CancellationToken::new();
        let bound = listener.local_addr().unwrap_or(address);
        let (listener, state) = (Arc::new(listener), Arc::clone(&self.admin));
        let (shutdown, metrics) = (closed.clone(), Arc::clone(&self.kept.telemetry.metrics));
        tokio::spawn(async move {
            let begin =
                || admin::serve(Arc::clone(&listener), Arc::clone(&state), shutdown.clone());
            keep("admin", &metrics.task_restarts, begin).await;
        });
        tracing::info!(target: START, listener = "admin", address = %bound, "listening");
        self.admin_listener = Some(AdminListener {
            address,
            bound,
            closed,
        });
    }
}
