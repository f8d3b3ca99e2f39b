//! `listeners/http`: accepts connections and serves them.
//!
//! Parent: `listeners`. It owns the listening socket, which survives its restarts, and counts connections. A restart
//! cuts no connection that is being served. It receives nothing but its own accept outcomes.

use std::sync::Arc;

use axum::Router;
use millpond::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::connection;
use crate::supervision::{Actor, ActorError, Own};

/// What the listener is told.
#[derive(Debug)]
pub enum HttpMessage {
    /// Somebody connected.
    Accepted(TcpStream),
}

/// Accepts HTTP connections.
#[derive(Debug)]
pub struct HttpListener;

/// What the listener starts with.
#[derive(Debug)]
pub struct HttpArguments {
    /// The listening socket.
    pub socket: Arc<TcpListener>,
    /// What is served.
    pub routes: Router,
    /// Turns true when the node stops.
    pub closing: watch::Receiver<bool>,
}

/// The state of the listener.
#[derive(Debug)]
pub struct HttpState {
    arguments: HttpArguments,
    connections: Arc<Semaphore>,
    accepting: JoinHandle<()>,
}

impl Drop for HttpState {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Actor for HttpListener {
    type Message = HttpMessage;
    type Arguments = HttpArguments;
    type State = HttpState;

    async fn pre_start(&self, myself: &Own<HttpMessage>, arguments: HttpArguments) -> Result<HttpState, ActorError> {
        let connections = Arc::new(Semaphore::new(limits::CONNECTIONS_MAX));
        let (socket, myself) = (Arc::clone(&arguments.socket), myself.clone());
        let accepting = tokio::spawn(async move {
            loop {
                let message = match socket.accept().await {
                    Ok((stream, _)) => HttpMessage::Accepted(stream),
                    // Out of descriptors, or a client that left in between: neither breaks the socket.
                    Err(error) => {
                        tracing::warn!(%error, "a connection was not accepted");
                        tokio::time::sleep(limits::ACCEPT_RETRY).await;
                        continue;
                    }
                };
                if myself.cast(message).is_err() {
                    return;
                }
            }
        });
        Ok(HttpState { arguments, connections, accepting })
    }

    async fn post_stop(&self, _: &Own<HttpMessage>, state: &mut HttpState) -> Result<(), ActorError> {
        state.accepting.abort();
        let all = u32::try_from(limits::CONNECTIONS_MAX).expect("a few thousand");
        // Requests at hand are answered; who takes longer is cut off.
        drop(tokio::time::timeout(limits::CLOSE_WAIT, state.connections.acquire_many(all)).await);
        Ok(())
    }

    async fn handle(
        &self,
        _: &Own<HttpMessage>,
        message: HttpMessage,
        state: &mut HttpState,
    ) -> Result<(), ActorError> {
        let HttpMessage::Accepted(stream) = message;
        let Ok(place) = Arc::clone(&state.connections).try_acquire_owned() else {
            tracing::warn!(limit = limits::CONNECTIONS_MAX, "too many connections, one is closed");
            return Ok(());
        };
        let (routes, closing) = (state.arguments.routes.clone(), state.arguments.closing.clone());
        tokio::spawn(async move {
            connection::serve(stream, routes, closing).await;
            drop(place);
        });
        Ok(())
    }
}
