//! The load over AMQP 0.9.1: publisher confirms; consumers acknowledge all that a read brought with one `multiple` ACK.

use std::cell::Cell;

use anyhow::{Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use ferrymq_bench::driver::{Driver, Endpoint, Receiver, Sender};

use super::{
    amqp::{
        AmqpConnection, AmqpFrame, BODY, HEADER, METHOD, check_not_closed, method, put_frame, put_method, put_short,
        skip_short, take_frame,
    },
    unconfirmed::Unconfirmed,
};

/// Connections go to the nodes in turn.
#[derive(Debug)]
pub(crate) struct RabbitDriver {
    pub(crate) addresses: Vec<String>,
    pub(crate) senders: Cell<usize>,
    pub(crate) receivers: Cell<usize>,
}

impl Driver for RabbitDriver {
    type Sender = RabbitSender;
    type Receiver = RabbitReceiver;

    async fn sender(&self, endpoint: Endpoint) -> Result<RabbitSender> {
        check(&endpoint)?;
        let mut connection = AmqpConnection::open(super::next(&self.addresses, &self.senders)).await?;
        connection
            .call(method::CONFIRM_SELECT, method::CONFIRM_SELECT_OK, |out| out.put_u8(0))
            .await?;
        let mut publish = BytesMut::new();
        put_method(&mut publish, method::PUBLISH, |out| {
            out.put_u16(0);
            put_short(out, "");
            put_short(out, &endpoint.destination);
            out.put_u8(0);
        });
        Ok(RabbitSender {
            connection,
            publish: publish.freeze(),
            unconfirmed: Unconfirmed::default(),
        })
    }

    async fn receiver(&self, endpoint: Endpoint) -> Result<RabbitReceiver> {
        check(&endpoint)?;
        let mut connection = AmqpConnection::open(super::next(&self.addresses, &self.receivers)).await?;
        let prefetch = u16::try_from(endpoint.window_messages_max).unwrap_or(u16::MAX);
        connection
            .call(method::QOS, method::QOS_OK, |out| {
                out.put_u32(0);
                out.put_u16(prefetch);
                out.put_u8(0);
            })
            .await?;
        connection
            .call(method::CONSUME, method::CONSUME_OK, |out| {
                out.put_u16(0);
                put_short(out, &endpoint.destination);
                put_short(out, "c");
                out.put_u8(0);
                out.put_u32(0);
            })
            .await?;
        Ok(RabbitReceiver {
            connection,
            tag: 0,
            acknowledged: 0,
            missing: 0,
            body: BytesMut::new(),
        })
    }
}

fn check(endpoint: &Endpoint) -> Result<()> {
    ensure!(!endpoint.is_topic, "the AMQP driver knows queues only");
    ensure!(
        endpoint.transaction_messages == 0,
        "the AMQP driver knows no transactions"
    );
    Ok(())
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RabbitSender {
    connection: AmqpConnection,
    /// The method's frame, the same for every message.
    publish: Bytes,
    unconfirmed: Unconfirmed,
}

impl Sender for RabbitSender {
    async fn send(&mut self, body: Bytes) -> Result<()> {
        let out = &mut self.connection.wire.output;
        out.put_slice(&self.publish);
        put_frame(out, HEADER, 1, |out| {
            out.put_u16(60);
            out.put_u16(0);
            out.put_u64(body.len() as u64);
            // Of the properties only the delivery mode: persistent.
            out.put_u16(1 << 12);
            out.put_u8(2);
        });
        put_frame(out, BODY, 1, |out| out.put_slice(&body));
        self.unconfirmed.sent();
        self.connection.wire.relieve().await
    }

    async fn confirmed(&mut self, numbers: &mut Vec<u64>) -> Result<()> {
        let before = numbers.len();
        loop {
            while let Some(frame) = take_frame(&mut self.connection.wire.input)? {
                self.on_frame(frame, numbers)?;
            }
            if numbers.len() > before {
                return Ok(());
            }
            self.connection.wire.fill().await?;
        }
    }
}

impl RabbitSender {
    fn on_frame(&mut self, frame: AmqpFrame, numbers: &mut Vec<u64>) -> Result<()> {
        if frame.kind != METHOD {
            return Ok(());
        }
        let (name, mut arguments) = frame.method()?;
        match name {
            method::ACK => {
                ensure!(arguments.len() >= 9, "ACK is cut off");
                // Tags begin with 1.
                let number = arguments.get_u64().saturating_sub(1);
                if arguments.get_u8() & 1 == 1 {
                    self.unconfirmed.up_to(number, numbers);
                } else {
                    self.unconfirmed.one(number, numbers);
                }
            }
            method::NACK => bail!("the broker has refused a message"),
            name => check_not_closed(name, &arguments)?,
        }
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RabbitReceiver {
    connection: AmqpConnection,
    /// The latest delivery's.
    tag: u64,
    acknowledged: u64,
    /// Bytes of the present body that have not come yet.
    missing: usize,
    /// Those that have, where it comes in several frames.
    body: BytesMut,
}

impl Receiver for RabbitReceiver {
    async fn receive(&mut self, bodies: &mut Vec<Bytes>) -> Result<()> {
        let before = bodies.len();
        loop {
            while let Some(frame) = take_frame(&mut self.connection.wire.input)? {
                self.on_frame(frame, bodies)?;
            }
            if bodies.len() > before {
                return Ok(());
            }
            self.connection.wire.fill().await?;
        }
    }

    async fn acknowledge(&mut self) -> Result<()> {
        // A delivery whose body is still coming is not acknowledged yet.
        let tag = self.tag - u64::from(self.missing > 0);
        if tag > self.acknowledged {
            self.acknowledged = tag;
            put_method(&mut self.connection.wire.output, method::ACK, |out| {
                out.put_u64(tag);
                out.put_u8(1);
            });
            self.connection.wire.write_some()?;
        }
        Ok(())
    }
}

impl RabbitReceiver {
    fn on_frame(&mut self, mut frame: AmqpFrame, bodies: &mut Vec<Bytes>) -> Result<()> {
        match frame.kind {
            METHOD => {
                let (name, mut arguments) = frame.method()?;
                if name != method::DELIVER {
                    return check_not_closed(name, &arguments);
                }
                skip_short(&mut arguments)?;
                ensure!(arguments.len() >= 8, "DELIVER is cut off");
                self.tag = arguments.get_u64();
                // Until the header tells how many.
                self.missing = usize::MAX;
            }
            HEADER => {
                ensure!(frame.payload.len() >= 12, "a content header is cut off");
                frame.payload.advance(4);
                self.missing = usize::try_from(frame.payload.get_u64())?;
            }
            BODY if frame.payload.len() == self.missing && self.body.is_empty() => {
                self.missing = 0;
                bodies.push(frame.payload);
            }
            BODY => {
                self.body.put_slice(&frame.payload);
                self.missing = self.missing.saturating_sub(frame.payload.len());
                if self.missing == 0 {
                    bodies.push(self.body.split().freeze());
                }
            }
            _ => {}
        }
        Ok(())
    }
}
