//! stub
use crate::links::Answer;
use crate::site::Site;
use crate::supervision::{ChildSpec, Restart, SupervisorActor, SupervisorMessage};
use bytes::Bytes;
/// stub
#[derive(Clone, Debug)]
pub struct QueryGate;
impl QueryGate {
    /// stub
    pub fn new(_: &Site) -> Self { Self }
    /// stub
    pub fn supervisor(&self, site: &Site) -> ChildSpec {
        let address = site.tree.seat::<SupervisorMessage>("query", Some("node"));
        ChildSpec::new(&address, Restart::VITAL, move || (SupervisorActor, vec![]))
    }
    /// stub
    pub fn serve_peer(&self, _: Bytes, _: Answer) {}
}
