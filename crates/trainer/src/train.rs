//! The training run, from configuration to trained model: read [`train`] from top to bottom.

use std::time::Instant;

use burn::tensor::{Device, FloatDType};
use convert::tokenizer::Tokenizer;

use crate::checkpoint::{Done, Found, Place, SaveFolder, Saver, Snapshot, Start, State};
use crate::config::{Address, BatchPlan, Config, DataloaderLabel, Engine, Precision};
use crate::data::{EvalData, Replica, TrainData};
use crate::device;
use crate::error::{Error, Result};
use crate::eval::{Evaluation, Examiner, Findings, lent};
use crate::generate::generate;
use crate::host;
use crate::icl::Tasks;
use crate::interrupt::Interrupt;
use crate::logging::monitor::{
    DeviceMemory, Memory, SpeedMonitor, hours, peak_flops, remaining_hours,
};
use crate::logging::{Flush, Metric, MetricLogger};
use crate::model::Gpt;
use crate::optim::{Optimizer, StepNorms};
use crate::replay::listed;
use crate::schedule::Schedule;
use crate::step::{Computed, Measured, Passes, accumulate};
use crate::time::{Time, Timestamp};
use crate::unread::{ReadBack, Taken, Unread};
use crate::watch::Watch;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How far it came.
    pub timestamp: Timestamp,
    /// Whether it was asked to stop before its end.
    pub interrupted: bool,
    /// Whether a checkpoint of where it stopped exists.
    pub saved: bool,
    /// The last evaluation, where there is an evaluation split and the run came to its end.
    pub evaluation: Option<Evaluation>,
}

/// Trains the model that `config` describes, from the start or from a checkpoint, until `max_duration` or until
/// `interrupt` is asked; then evaluates it, and lets it write.
///
/// # Errors
/// When the configuration, data, tokenizer, device or checkpoint does not allow the run, a file cannot be written, or
/// the loss stops being a number.
pub fn train(config: &Config, interrupt: &Interrupt) -> Result<Outcome> {
    let device = device::select(config.device)?;
    train_on(&device, ReadBack::of(config, device::is_cpu(&device)), config, interrupt)
}

pub(crate) fn train_on(
    device: &Device,
    read_back: ReadBack,
    config: &Config,
    interrupt: &Interrupt,
) -> Result<Outcome> {
    // What there is.
    let tokenizer = Tokenizer::load(&config.tokenizer_name)?;
    let world_size = world_size()?;
    let plan = config.batch_plan(world_size)?;
    if world_size > 1 {
        return Err(Error::Config(format!(
            "WORLD_SIZE is {world_size}, but a run has one process and one device so far; unset WORLD_SIZE"
        )));
    }
    let plan = match host::available_memory().filter(|_| device::is_cpu(device)) {
        Some(available) => config.plan_within(plan, Engine::Cpu, available)?,
        None => plan,
    };
    let mut train_data = TrainData::open(config, &tokenizer, Replica::single())?;
    let eval_data = EvalData::open(config, &tokenizer)?;
    let tasks = Tasks::of_run(config, &tokenizer)?;
    let batches_per_epoch = train_data.batches_per_epoch();
    let schedule =
        Schedule::from_config(&config.scheduler, config.max_duration, batches_per_epoch)?;

    // The place in the run: its beginning, or that of a checkpoint.
    let mut state = State::new(config, Timestamp::default());
    let save_place = place(config, config.save_folder.as_ref())?;
    let mut from = Start::find(config, save_place.as_ref())?;
    if let Some(from) = &from {
        from.restore(config, &mut state, &mut train_data)?;
    }
    if !config.max_duration.reached(&state.timestamp) {
        // The first shards come while the model is made.
        train_data.start()?;
    }

    // The model: new, or from the checkpoint.
    let mut model = Gpt::init(&config.model, config.seed, &device.clone().autodiff())
        .computing_in(device::arithmetic(config.precision, device));
    let mut optimizer = Optimizer::new(config.optimizer.clone(), &model, device);
    if let Some(from) = &mut from {
        model = from.load_model(model)?;
        from.load_moments(&mut optimizer, device)?;
    }
    let resumed = from.as_ref().filter(|from| from.resumes()).map(|from| &from.found);
    let resume_at = resumed.map(|_| state.timestamp);
    let own = resumed.filter(|found| save_place.as_ref().is_some_and(|place| place.owns(found)));
    // What is loaded from elsewhere is not in this run's own folder yet.
    let mut saved_at = own.map(|_| state.timestamp);
    let mut saver = Saver::new(open_checkpoints(config, save_place.as_ref(), own)?);
    let mut logger = MetricLogger::open(config, resume_at.as_ref(), batches_per_epoch)?;
    announce(config, device, &plan, from, &logger);
    tasks.notes().iter().for_each(|note| logger.print(&format!("note: {note}")));

    let mut speed = Speedometer::new(config, device, &state);
    speed.note().iter().for_each(|note| logger.print(note));
    let watch = Watch::new(&config.callbacks);
    let has_ended = |state: &State| {
        config.max_duration.reached(&state.timestamp) || watch.is_over(&state.watch)
    };
    let (data, tasks) = (&eval_data[..], &tasks);
    let examiner = Examiner { config, data, tasks, tokenizer: &tokenizer, interrupt };
    // A resumed run may owe an evaluation that Ctrl-C broke off; once that is on record, the checkpoint must say so.
    let owed = state.evaluation_due;
    state.evaluation_due |= config.eval_first && state.timestamp.batch == 0;
    let at_end = has_ended(&state);
    let mut findings = examiner.run_due(&model, &mut state, &mut logger, at_end)?;
    see_evaluation(&watch, &mut state, findings.as_ref());
    if owed && !state.evaluation_due {
        saved_at = save(&mut saver, &state, &model, &optimizer, &mut logger)?;
    }

    let mut passes = Passes::new(config, plan, state.microbatch);
    let reads_at_once = read_back == ReadBack::AtOnce;
    let mut unread = Unread::new(read_back);
    while !has_ended(&state) && !interrupt.is_asked() {
        see_saved(saver.poll()?, &logger)?;
        let began = Instant::now();
        // What it waits for may be a server that is silent.
        let Some(batch) = train_data.next_batch_unless(|| interrupt.is_asked())? else { break };

        // Forward and backward, microbatch by microbatch.
        let passed = passes.run(
            |plan| {
                let mut computed = accumulate(&model, &batch, config, plan, state.timestamp.batch)?;
                let measured = reads_at_once.then(|| computed.reading.read()).transpose()?;
                Ok((computed, measured))
            },
            || device.memory_cleanup(),
        )?;
        let (Computed { gradients, norm, reading }, measured) = passed.value;
        passed.notes.iter().for_each(|note| logger.print(&format!("note: {note}")));
        state.microbatch = passes.found();
        let lr = config.optimizer.lr * schedule.multiplier(state.previous_start.as_ref());
        let (start, samples) = (state.timestamp, batch.sample_ids());
        if let Some(measured) = measured {
            ensure_finite(&measured, start.batch + 1, lr, &samples, &mut logger)?;
        }
        let mut end = start;
        end.advance(batch.rows as u64, (batch.rows * batch.seq_len) as u64);
        if batches_per_epoch == Some(end.batch_in_epoch) {
            end.end_epoch();
        }
        let monitor =
            config.callbacks.optimizer_monitor.filter(|m| m.interval.is_due(&start, &end));
        let mut norms = Vec::new();
        if monitor.is_some() {
            norms.push(("grad", gradients.norms()));
        }

        // The optimizer's step.
        model = passes.finish(|| {
            let gradients = match &config.algorithms.gradient_clipping {
                Some(clipping) => gradients.clip(clipping, &norm, &model),
                None => gradients,
            };
            let broken = (!reads_at_once).then(|| reading.is_broken());
            let is_measured = monitor.is_some_and(|monitor| monitor.log_optimizer_metrics);
            let mut measured = is_measured.then(StepNorms::default);
            let stepped = optimizer.take_step(model, gradients, lr, broken, measured.as_mut());
            norms.extend(measured.map(StepNorms::read).into_iter().flatten());
            if reads_at_once {
                // A GPU that fails in it must not say so only in the next batch, which would be tried again with what is left.
                device.sync().map_err(|problem| problem.to_string())?;
            }
            Ok(stepped)
        })?;

        // Bookkeeping.
        state.timestamp = end;
        state.previous_start = Some(start);
        state.optimizer_steps = optimizer.steps();
        state.data = train_data.state();
        let metrics = train_data.cache_metrics().into_iter().chain(saver.metrics());
        let taken = Taken {
            start,
            end,
            grad_accum: passes.plan().grad_accum,
            lr,
            next_lr: config.optimizer.lr * schedule.alpha(&start),
            samples,
            has_targets: batch.labelled() > 0,
            seconds: began.elapsed().as_secs_f64(),
            waited: batch.wait.as_secs_f64(),
            metrics: metrics.collect(),
            norms: by_parameter(&model, norms),
        };
        unread.push(taken, reading);
        let is_due = |interval: Time| interval.is_due(&start, &end);
        let must_be_known = config.max_duration.reached(&end)
            || is_due(config.eval_interval)
            || is_due(config.save_interval);
        if must_be_known || unread.is_due(config) {
            see_steps(unread.read(&passes)?, config, &mut state, &mut speed, &watch, &mut logger)?;
        }

        // Both also at the end; evaluations first, so that the checkpoint's run has them on record.
        let last = has_ended(&state);
        state.evaluation_due = last || config.eval_interval.is_due(&start, &end);
        findings = examiner.run_due(&model, &mut state, &mut logger, last)?;
        see_evaluation(&watch, &mut state, findings.as_ref());
        if has_ended(&state) || config.save_interval.is_due(&start, &end) {
            saved_at = save(&mut saver, &state, &model, &optimizer, &mut logger)?;
        }
    }

    see_steps(unread.read(&passes)?, config, &mut state, &mut speed, &watch, &mut logger)?;
    let interrupted = !has_ended(&state) || state.evaluation_due;
    if interrupted && saved_at != Some(state.timestamp) {
        saved_at = save(&mut saver, &state, &model, &optimizer, &mut logger)?;
    }
    see_saved(saver.wait()?, &logger)?;
    if let Some(reason) = watch.reason(&state.watch) {
        logger.print(&reason);
    }
    let mut evaluation = None;
    if !interrupted {
        evaluation = examiner.report(&model, findings, &logger)?;
        if let Some(prompt) = &config.generate.prompt {
            let text = generate(&model, &tokenizer, prompt, &config.generate, config.seed, |_| {})?;
            logger.print(&format!("generated: {prompt}{text}"));
        }
    }
    logger.print(&speed.summary(&state));
    logger.finish()?;
    let saved = saved_at == Some(state.timestamp);
    Ok(Outcome { timestamp: state.timestamp, interrupted, saved, evaluation })
}

/// Logs steps whose losses are known, in their order, and shows them to `watch`.
fn see_steps(
    steps: Vec<(Taken, Measured)>,
    config: &Config,
    state: &mut State,
    speed: &mut Speedometer,
    watch: &Watch,
    logger: &mut MetricLogger,
) -> Result<()> {
    for (step, measured) in steps {
        let Taken { start, end, lr, ref samples, .. } = step;
        ensure_finite(&measured, start.batch + 1, lr, samples, logger)?;
        state.train_seconds += step.seconds;
        speed.waited += step.waited;
        if !step.has_targets {
            logger.print(&format!("note: {}", without_targets(start.batch + 1, samples)));
        }
        let (at_start, mut at_end) = speed.metrics(config, &step, state, &measured);
        at_end.extend(step.metrics);
        at_end.extend(step.norms.iter().map(|(key, norm)| (key.as_str(), (*norm).into())));
        // Without a target there is no loss, and the optimizer's step was that of a gradient of 0.
        let loss = step.has_targets.then_some(measured.loss.total);
        let alarm = loss.and_then(|loss| watch.see_loss(&mut state.watch, &end, loss));
        at_end.extend(alarm.iter().map(|alarm| (alarm.key, alarm.note.as_str().into())));
        logger.log_step(&start, &end, &at_start, &at_end)?;
        match alarm {
            Some(alarm) if alarm.kills => {
                logger.draw_curve()?;
                return Err(alarm.to_error());
            }
            Some(alarm) => logger.print(&format!("note: {}", alarm.note)),
            None => {}
        }
        watch.see(&mut state.watch, DataloaderLabel::Train, &start, &end, &at_start);
    }
    Ok(())
}

/// Ends the run at a batch whose loss or norm is no finite number.
fn ensure_finite(
    measured: &Measured,
    batch: u64,
    lr: f64,
    samples: &[u64],
    logger: &mut MetricLogger,
) -> Result<()> {
    let Measured { loss, norm } = measured;
    if loss.total.is_finite() && norm.is_finite() {
        return Ok(());
    }
    logger.print(&format!("samples of batch {batch}: {}", listed(samples)));
    logger.draw_curve()?;
    Err(Error::Training(format!(
        "batch {batch}: the loss is {} and the gradient norm {norm} at a learning rate of {lr:.3e}; nothing of this batch \
         is kept; its samples are listed above. See what is in it with --replay_step {batch}. Lower optimizer.lr or \
         lengthen scheduler.t_warmup, and continue from the last checkpoint",
        loss.total
    )))
}

/// Shows `watch` what an evaluation has found, if there was one.
fn see_evaluation(watch: &Watch, state: &mut State, findings: Option<&Findings>) {
    if let Some(findings) = findings {
        let at = state.timestamp;
        watch.see(&mut state.watch, DataloaderLabel::Eval, &at, &at, &lent(&findings.metrics()));
    }
}

/// `l2_norm/grad/wte.weight` and its like: norms of every parameter of `model`, under the word of each kind.
fn by_parameter(model: &Gpt, norms: Vec<(&'static str, Vec<f64>)>) -> Vec<(String, f64)> {
    if norms.is_empty() {
        return Vec::new();
    }
    let parameters = model.parameters();
    let named = |(word, norms): (&'static str, Vec<f64>)| {
        let named = parameters.iter().zip(norms);
        named
            .map(|(spec, norm)| (format!("l2_norm/{word}/{}", spec.name), norm))
            .collect::<Vec<_>>()
    };
    norms.into_iter().flat_map(named).collect()
}

/// How many processes a launcher such as torchrun says there are, each with a device of its own.
fn world_size() -> Result<usize> {
    let variable = |name: &str| std::env::var(name).ok();
    let (world, _) = mds::order::World::from_launcher(variable, 1).map_err(mds::Error::from)?;
    Ok(world.nodes * world.ranks_per_node)
}

fn without_targets(batch: u64, samples: &[u64]) -> String {
    format!(
        "batch {batch} has not one token to predict: no loss is logged or watched, and its gradient is 0; its samples are \
         {}",
        listed(samples)
    )
}

pub(crate) fn place(config: &Config, address: Option<&Address>) -> Result<Option<Place>> {
    address.map(|address| Place::open(address, config.remote_options())).transpose()
}

fn open_checkpoints(
    config: &Config,
    save_place: Option<&Place>,
    own: Option<&Found>,
) -> Result<Option<SaveFolder>> {
    let Some(place) = save_place else { return Ok(None) };
    let keep = usize::try_from(config.save_num_checkpoints_to_keep).ok();
    // What autoresume passed over is damaged, and no loss.
    let overwrite = config.save_overwrite || (config.autoresume && own.is_some());
    SaveFolder::open(place, keep, overwrite, own).map(Some)
}

/// Begins to save the run where it has a save folder, and returns the position that is saved then. The checkpoint before
/// comes first.
fn save(
    saver: &mut Saver,
    state: &State,
    model: &Gpt,
    optimizer: &Optimizer,
    logger: &mut MetricLogger,
) -> Result<Option<Timestamp>> {
    let began = Instant::now();
    see_saved(saver.wait()?, logger)?;
    // A resumed run takes back what was logged after the checkpoint, so what came before must not be lost. If it is, the
    // run ends, but not without its checkpoint. Both ask before they touch a remote whether it is still this run's.
    let flush = logger.flush();
    saver
        .begin(|| flush.and_then(Flush::run), || Snapshot::take(state.clone(), model, optimizer))?;
    saver.held_up(began.elapsed());
    Ok(saver.has_folder().then_some(state.timestamp))
}

/// Says where a checkpoint lies that was being saved.
fn see_saved(done: Option<Done>, logger: &MetricLogger) -> Result<()> {
    let Some(Done { saved, first: flushed }) = done else { return Ok(()) };
    if let Some(saved) = saved {
        logger.print(&format!("saved {saved}"));
    }
    flushed
}

/// Says what will be trained, on what, and from where.
fn announce(
    config: &Config,
    device: &Device,
    plan: &BatchPlan,
    from: Option<Start>,
    logger: &MetricLogger,
) {
    let stars = "*".repeat(30);
    logger.print(&format!("{stars}\nConfig:\n{}{stars}", config.to_yaml()));
    for notice in config.notices.iter().chain(&plan.notice) {
        logger.print(&format!("note: {notice}"));
    }
    if let Some(notice) = device::other_arithmetic(config.precision, device) {
        logger.print(&format!("note: {notice}"));
    }
    logger.print(&format!(
        "n_params={} ({})",
        scientific(config.model.n_params() as f64),
        config.model.n_params()
    ));
    logger.print(&format!("device: {}", device::name(device)));
    if let Some((address, folder)) = logger.on_its_way() {
        logger.print(&format!(
            "note: run_folder {address} is written to {} and uploaded with each checkpoint and at the end",
            folder.display()
        ));
    }
    if let Some(from) = from {
        from.notes(config).iter().for_each(|note| logger.print(note));
    }
}

/// As Python's `f"{x:.2e}"` for x >= 1: `1.25e+08`.
pub(crate) fn scientific(x: f64) -> String {
    let exponent = if x > 0.0 { x.log10().floor() as i32 } else { 0 };
    format!("{:.2}e+{exponent:02}", x / 10f64.powi(exponent))
}

/// Measures this process's pace.
struct Speedometer {
    monitor: SpeedMonitor,
    flops_per_token: f64,
    peak: Option<f64>,
    /// Tokens, training seconds and share of the run when this process began.
    began: (u64, f64, f64),
    /// Seconds since then in which steps waited for their batches.
    waited: f64,
    device: Device,
    device_memory: DeviceMemory,
}

impl Speedometer {
    fn new(config: &Config, device: &Device, state: &State) -> Self {
        let flops_per_sample = config.model.train_flops_per_sequence(config.max_seq_len);
        let monitor = config.callbacks.speed_monitor;
        let given = monitor.and_then(|monitor| monitor.gpu_flops_available);
        let precision = match device::arithmetic(config.precision, device) {
            FloatDType::F32 => Precision::Fp32,
            _ => Precision::AmpBf16,
        };
        let peak = given.or_else(|| peak_flops(&device::name(device), precision));
        let window = monitor.map_or(10, |monitor| monitor.window_size);
        Self {
            monitor: SpeedMonitor::new(window, flops_per_sample, peak),
            flops_per_token: flops_per_sample / config.max_seq_len as f64,
            peak,
            began: (state.timestamp.token, state.train_seconds, share(config, &state.timestamp)),
            waited: 0.0,
            device: device.clone(),
            device_memory: DeviceMemory::default(),
        }
    }

    /// What it lacks, if anything.
    fn note(&self) -> Option<String> {
        let lacks = self.peak.is_none() && !device::is_cpu(&self.device);
        lacks.then(|| {
            format!(
                "note: the peak of {} is not known, so that there is no MFU; give \
                 callbacks.speed_monitor.gpu_flops_available",
                device::name(&self.device)
            )
        })
    }

    /// What is logged of a step: under its number, and under the next one, as the reference does.
    fn metrics(
        &mut self,
        config: &Config,
        step: &Taken,
        state: &State,
        measured: &Measured,
    ) -> (Vec<Metric<'static>>, Vec<Metric<'static>>) {
        let Measured { loss, norm } = *measured;
        let mut at_start = vec![("trainer/grad_accum", (step.grad_accum as u64).into())];
        if step.has_targets {
            at_start.extend([
                ("loss/train/total", loss.total.into()),
                ("metrics/train/LanguageCrossEntropy", loss.cross_entropy.into()),
                ("metrics/train/Perplexity", loss.cross_entropy.exp().into()),
            ]);
        }
        let mut at_end = vec![
            ("wall_clock/train", state.train_seconds.into()),
            ("wall_clock/val", state.eval_seconds.into()),
            ("wall_clock/total", (state.train_seconds + state.eval_seconds).into()),
        ];
        let callbacks = &config.callbacks;
        if callbacks.lr_monitor.is_some() {
            at_end.push((config.optimizer.name.lr_key(), step.next_lr.into()));
        }
        let (rows, tokens) =
            (step.end.sample - step.start.sample, step.end.token - step.start.token);
        let speed = self.monitor.step_done(state.train_seconds, rows, tokens);
        if callbacks.speed_monitor.is_some() {
            at_end.extend(speed.map(|speed| speed.metrics(1)).unwrap_or_default());
            at_end.extend(hours(state.train_seconds, state.eval_seconds));
        }
        if callbacks.memory_monitor.is_some() {
            at_end.extend(Memory::of_this_process().iter().flat_map(Memory::metrics));
            if let Some(pool) = self.device.memory_pool_usage() {
                let (in_use, padding) = (pool.bytes_in_use, pool.bytes_padding);
                at_end.extend(self.device_memory.see(in_use, padding, pool.bytes_reserved));
            }
        }
        let (_, seconds, began) = self.began;
        let pace = remaining_hours(began, share(config, &step.end), state.train_seconds - seconds);
        if let (Some(hours), Some(_)) = (pace, callbacks.runtime_estimator) {
            at_end.push(("time/remaining_estimate", hours.into()));
        }
        at_end.push(("trainer/global_step", step.end.batch.into()));
        at_end.push(("trainer/batch_idx", step.end.batch_in_epoch.into()));
        at_end.push(("l2_norm/grad/global", norm.into()));
        at_end.push(("data/wait_share", (self.waited / (state.train_seconds - seconds)).into()));
        (at_start, at_end)
    }

    /// The pace of the whole process in one line.
    fn summary(&self, state: &State) -> String {
        let (tokens, seconds, _) = self.began;
        let seconds = state.train_seconds - seconds;
        let tokens = (state.timestamp.token - tokens) as f64;
        if seconds <= 0.0 || tokens == 0.0 {
            return "no step was taken".to_owned();
        }
        let rate = tokens / seconds;
        let flops = rate * self.flops_per_token;
        let load = match self.peak {
            Some(peak) => format!("MFU {:.1} %", 100.0 * flops / peak),
            None => format!("{:.1} model GFLOP/s", flops / 1e9),
        };
        let waited = 100.0 * self.waited / seconds;
        format!(
            "trained for {seconds:.1} s: {rate:.0} tokens/s, {load}, {waited:.1} % of it waiting for data"
        )
    }
}

/// The share of the run that lies behind, from 0 to 1.
fn share(config: &Config, now: &Timestamp) -> f64 {
    now.get(config.max_duration.unit) as f64 / config.max_duration.value.max(1.0)
}
