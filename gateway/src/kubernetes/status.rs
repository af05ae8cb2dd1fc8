use std::sync::Arc;
use tokio::sync::watch as channel;
use super::{Published, object::ObjectSet, client::Connection, watch::WatchStates};
use crate::core::Shared;
pub(super) async fn keep(_c: Connection, _o: (channel::Receiver<Option<Arc<ObjectSet>>>, channel::Receiver<Option<Published>>), _s: Arc<WatchStates>, _h: Arc<Shared>) {}
