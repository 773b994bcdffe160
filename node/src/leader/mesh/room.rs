//! How much room there is for what other groups have (P8): a full store takes nothing over, so that its reserve is left for
//! what makes room again.

use ferrymq_broker::{GroupId, TransferId};
use ferrymq_forwarding::{Input, Room};

use crate::leader::Leader;

/// Ticks after which a store that has stayed full takes a little from other groups all the same.
const FULL_TICKS_MAX: u64 = 300;

impl Leader {
    /// Whether there is room for what has arrived, so that the log keeps its reserve for acknowledgements. Behind a
    /// transfer that had none no later one of its group is taken before it comes again (P6); the mesh repeats them in their
    /// order.
    pub(super) fn may_accept(&mut self, (origin, transfer): (GroupId, TransferId)) -> bool {
        let is_next = self.bridges.refused.get(&origin).is_none_or(|&first| transfer <= first);
        let may = is_next && self.has_room_beyond(self.accept_reserve_bytes(self.bridges.room_told));
        if may {
            self.bridges.refused.remove(&origin);
        } else {
            self.bridges.refused.entry(origin).or_insert(transfer);
        }
        may
    }

    /// Disk that must stay free when something is taken over, in bytes.
    fn accept_reserve_bytes(&self, room: Room) -> u64 {
        match room {
            Room::Plenty | Room::None => self.config.store_reserve_bytes,
            Room::Little => self.config.store_reserve_bytes / 2,
        }
    }

    /// Tells the mesh how much room there is for what other groups have (P8).
    pub(in super::super) fn tell_room(&mut self) {
        let room = match self.full_since {
            None => Room::Plenty,
            Some(since)
                if self.ticks - since >= FULL_TICKS_MAX
                    && self.has_room_beyond(self.accept_reserve_bytes(Room::Little)) =>
            {
                Room::Little
            }
            Some(_) => Room::None,
        };
        if std::mem::replace(&mut self.bridges.room_told, room) != room {
            self.bridges.tell(Input::Room(room));
        }
    }
}
