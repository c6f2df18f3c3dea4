"""Other tools' names for the knobs, and the answer to each.

The names are those of lightly, solo-learn, timm, the references of torchvision, the code of SimSiam
and MoCo, and scikit-learn. Such a name is refused; the message says what to write instead.
"""

from __future__ import annotations

from collections.abc import Collection

GUESSES = {  # "here KNOB", with a note, or why there is none: the names
    "here optimizer.base_lr, per 256 images of a batch": (
        "lr learning_rate learning_rate_init init_lr initial_lr lr_base blr max_lr peak_lr base_lr"
    ),
    "here optimizer.weight_decay": "wd weight_decay l2 weight_decay_rate",
    "here optimizer.momentum, and SimSiam has no momentum encoder": "momentum",
    "here optimizer.algorithm, sgd or lars": (
        "opt optim optimizer optimizer_name optimizer_type solver adam adamw lars sgd"
    ),
    "here optimizer.warmup_epochs": (
        "warmup warm_up warmup_lr warmup_steps lr_warmup_epochs num_warmup_epochs"
    ),
    "here optimizer.alpha_h, the predictor's rate over the encoder's": (
        "pred_lr predictor_lr lr_pred lr_predictor"
    ),
    "here optimizer.predictor_schedule, constant unless it is changed": (
        "fix_pred_lr fix_predictor_lr"
    ),
    "the learning rate follows a cosine, the predictor's is set by optimizer.predictor_schedule": (
        "sched scheduler schedule lr_scheduler lr_schedule cos cosine gamma lr_gamma milestones "
        "step_size lr_step_size decay_rate min_lr lr_min final_lr end_lr"
    ),
    "SGD has a momentum and no other options": "nesterov dampening betas beta1 beta2 eps opt_eps",
    "gradients are not clipped": "clip_grad grad_clip clip_grad_norm gradient_clip_val max_norm",
    "gradients are not accumulated": (
        "accumulate_grad_batches grad_accum gradient_accumulation_steps accum_iter"
    ),
    "here batch": (
        "b bs batch_size batchsize train_batch_size mini_batch_size batch_size_per_device "
        "batch_size_per_gpu per_device_train_batch_size"
    ),
    "here epochs": (
        "e epoch max_epochs num_epochs n_epochs nb_epochs num_train_epochs total_epochs max_iter"
    ),
    "a run counts epochs, not steps": "steps max_steps num_steps n_steps total_steps iterations",
    "here encoder.name": (
        "a arch architecture backbone backbone_name model model_name net network encoder"
    ),
    "here encoder.stem, small for images of 32 px and large for 224 px": (
        "stem cifar cifar_stem small_stem first_conv maxpool1 low_res"
    ),
    "here encoder.zero_init": "zero_init_residual zero_init_last",
    "here views.size, the side of a view": (
        "crop crop_size train_crop_size img_size image_res imgsz input_size input_dim resolution "
        "size"
    ),
    "here views.crop_min and views.crop_max": (
        "scale crop_scale min_scale max_scale scale_min scale_max min_crop "
        "random_resized_crop_scale"
    ),
    "here views.flip": "hflip hf_prob flip_prob horizontal_flip horizontal_flip_prob",
    "here views.jitter, with views.brightness, contrast, saturation and hue": (
        "color_jitter colour_jitter color_jitter_prob jitter_prob jitter_strength cj_prob "
        "cj_strength"
    ),
    "here views.grayscale": "gray gray_prob gray_scale gray_scale_prob random_gray_scale greyscale",
    "here views.blur": "blur_prob gaussian_blur gaussian_prob gaussian_blur_prob",
    "the knobs views.* crop, flip, colour and blur a view, and no more": (
        "vflip vf_prob vertical_flip ratio rr_prob solarize solarization solarize_prob "
        "solarization_prob aa auto_augment randaugment mixup mixup_alpha cutmix cutmix_alpha "
        "reprob random_erase random_erasing cutout aug_plus"
    ),
    "SimSiam has two views": (
        "n_views num_views n_crops num_crops num_crops_per_aug num_large_crops num_small_crops "
        "local_crops_number"
    ),
    "the images are normalised by their own mean and standard deviation": "mean std normalize",
    "SimSiam has no temperature, and the kNN's is knn.temperature": (
        "t tau temp temperature moco_t nce_t"
    ),
    "SimSiam has no momentum encoder": (
        "m ema ema_decay moco_m model_ema momentum_encoder base_tau final_tau base_tau_momentum "
        "final_tau_momentum"
    ),
    "SimSiam has no negatives": "queue queue_size moco_k memory_bank num_negatives",
    "SimSiam has no dropout and no smoothing": (
        "drop dropout drop_rate drop_path smoothing label_smoothing"
    ),
    "the loss is SimSiam's": "loss criterion method ssl_method",
    "here projector.out": (
        "dim out_dim output_dim embed_dim embedding_dim feat_dim feature_dim proj_dim "
        "proj_output_dim proj_out_dim projection_dim n_components"
    ),
    "here projector.hidden": "hidden_dim proj_hidden proj_hidden_dim num_hidden",
    "here projector.layers": "proj_layers num_proj_layers n_layers num_layers",
    "here predictor.hidden": "pred_dim pred_hidden pred_hidden_dim predictor_hidden_dim",
    "here knn.k": "k knn_k nb_knn n_neighbors num_neighbors",
    "here knn.temperature": "knn_t knn_temperature",
    "here knn_every": (
        "knn knn_eval knn_interval eval_every eval_freq eval_interval val_freq val_interval "
        "check_val_every_n_epoch"
    ),
    "here checkpoint_every, in steps": (
        "save_every save_freq save_interval save_steps checkpoint_freq checkpoint_interval"
    ),
    "here validation, a share of the training images": (
        "val_split validation_split val_fraction validation_fraction val_ratio val_size test_size"
    ),
    "here stop_gradient": "stop_grad stopgrad sg detach",
    "here stop_on_collapse, the only way to stop a run early": "early_stopping patience",
    "here seed": "random_state manual_seed random_seed global_seed",
    "here device, such as cpu or cuda:0": ("gpu cuda use_cuda no_cuda cpu mps accelerator"),
    "here --devices of pretrain and resume, or torchrun with -m stopgrad": (
        "gpus num_gpus n_gpus devices nproc_per_node strategy ddp distributed rank local_rank "
        "multiprocessing_distributed world_size nodes num_nodes dist_url dist_backend"
    ),
    "here threads, because images are decoded once and no workers load them": (
        "j workers num_workers n_workers nw n_jobs num_threads dataloader_num_workers cpus"
    ),
    "here precision, auto, bf16 or fp32": (
        "amp use_amp no_amp amp_dtype fp16 bf16 half mixed_precision use_fp16"
    ),
    "here compile": "torchcompile torch_compile use_compile",
    "here repeatable": (
        "deterministic benchmark cudnn_benchmark cudnn_deterministic use_deterministic_algorithms"
    ),
    "here batch_norm_over, all or process": "sync_bn syncbn",
    "here batch_norm, per-view or joint": "bn",
    "pretraining sees no classes": "num_classes n_classes nb_classes",
    "each epoch prints a line, and metrics.jsonl holds every step": (
        "v verbose quiet print_freq log_every log_freq log_interval log_every_n_steps hide_progress"
    ),
    "here --preset tiny": "debug dry_run fast_dev_run",
    "here --data": (
        "d dataset dataset_name dataset_path data_dir data_path data_root root input input_dir "
        "images train_data train_dir train_path train_data_path img_folder folder train traindir "
        "train_root train_dataset"
    ),
    "a split is a folder of --data, such as test/, and stopgrad evaluate RUN takes --split or "
    "--data": (
        "val val_data val_dir val_path val_root val_dataset valid valid_data valid_dir valdir "
        "validation_data validation_dir test test_data test_dir test_path test_root test_dataset "
        "testdir eval_data eval_dir eval_dataset"
    ),
    "labels are class folders, a table beside the images, or --label-column": (
        "labels label_file labels_file label_csv labels_csv label_path annotations annotation "
        "annotation_file csv csv_file metadata targets"
    ),
    "here --out": (
        "o output output_dir save_dir save_path log_dir logdir exp_dir work_dir model_dir run_dir "
        "results_dir checkpoint_dir ckpt_dir default_root_dir name exp_name experiment run_name "
        "project wandb use_wandb log_wandb tensorboard logger"
    ),
    "here --config": "c cfg conf config_file config_path",
    "here --init for weights, and stopgrad resume RUN to continue a run": (
        "pretrained weights checkpoint ckpt ckpt_path initial_checkpoint pretrained_weights "
        "load_from from_checkpoint resume resume_from resume_from_checkpoint auto_resume "
        "start_epoch"
    ),
    "a run is never overwritten, but stopgrad resume RUN continues it": (
        "f force overwrite exist_ok"
    ),
    "here stopgrad evaluate RUN": "evaluate eval eval_only test_only",
}

_ANSWERS = {name: answer for answer, names in GUESSES.items() for name in names.split()}


def guess(key: str, known: Collection[str]) -> str:
    """A clause that says what another tool's key is called here; "" for an unknown key.

    Args:
        key: As it was written, perhaps below a section: `batch_size`, `optimizer.lr`.
        known: The key paths of all knobs.
    """
    section, _, name = key.lower().replace("-", "_").rpartition(".")
    answer = _ANSWERS.get(name, "")
    here, _, rest = answer.partition(" ")
    knob, comma, note = rest.partition(",")
    own = f"{section}.{knob.rpartition('.')[2]}"
    return f"{here} {own}{comma}{note}" if here == "here" and own in known else answer
